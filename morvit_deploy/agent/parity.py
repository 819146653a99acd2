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

    Returns the largest difference of each image, the largest expected magnitude, and how many have the same class.
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
    return {
        "images": len(wanted),
        "max_abs": [float(gap) if np.isfinite(gap) else None for gap in apart],
        "scale": float(np.abs(wanted).max()),
        "same_class": int((found.argmax(axis=1) == wanted.argmax(axis=1)).sum()),
    }
