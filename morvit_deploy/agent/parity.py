"""Compares the device's logits with those expected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morvit_deploy.agent.core.faults import Refused
from morvit_deploy.agent.serving import Model, Rounds

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compared(model: Model, rounds: Rounds, expected: Path, most: int) -> dict[str, Any]:
    """Compare the first `most` rounds with `logits` (images, classes) of a .npz file, which is never unpickled.

    Returns the largest difference of each image, the largest expected magnitude, how many have the same class, and
    how many have the same sign of every logit: the decisions of a sigmoid head.
    """
    with np.load(str(expected), allow_pickle=False) as stored:
        wanted = stored["logits"]
    parts = [model.run(rounds[number])["logits"] for number in range(min(most, len(rounds)))]
    return gaps(np.concatenate(parts)[: len(wanted)], wanted)


def gaps(returned: NDArray[Any], wanted: NDArray[Any]) -> dict[str, Any]:
    """The same for two arrays of logits (images, classes)."""
    found = returned.astype(np.float64)
    if found.shape != wanted.shape:
        raise Refused(
            f"the device returns logits {list(found.shape)}, expected {list(wanted.shape)}; measure again"
        )
    apart = np.abs(found - wanted).max(axis=1)
    same_signs = ((found > 0) == (wanted > 0)).all(axis=1)
    same_class = found.argmax(axis=1) == wanted.argmax(axis=1)
    return {
        "images": len(wanted),
        "max_abs": [float(gap) if np.isfinite(gap) else None for gap in apart],
        "scale": float(np.abs(wanted).max()),
        "same_class": int((same_signs if wanted.shape[1] == 1 else same_class).sum()),
        "same_signs": int(same_signs.sum()),
    }
