"""Compares what the device returns, logits, features or tokens, with what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morvit_deploy.agent.core.faults import Refused
from morvit_deploy.agent.serving import Model, Rounds

if TYPE_CHECKING:
    from numpy.typing import NDArray


def compared(model: Model, rounds: Rounds, expected: Path, most: int) -> dict[str, Any]:
    """Compare the first `most` rounds with the array of a .npz file.

    Returns the largest difference of each image, the largest expected magnitude, how many have the same class, how
    many have the same sign of every logit (the decisions of a sigmoid head), and the power of each image's
    differences as a share of its own.
    """
    name, wanted = expected_answers(expected)
    parts = [model.run(rounds[number])[name] for number in range(min(most, len(rounds)))]
    return gaps(np.concatenate(parts)[: len(wanted)], wanted)


def expected_answers(path: Path) -> tuple[str, NDArray[Any]]:
    """The only array of a .npz file, which is never unpickled, and its name: that of the bundle's output."""
    with np.load(str(path), allow_pickle=False) as stored:
        (name,) = stored.files
        return name, stored[name]


def gaps(returned: NDArray[Any], wanted: NDArray[Any]) -> dict[str, Any]:
    """The same for two arrays: logits (images, classes), features (images, dim) or tokens (images, patches, dim)."""
    found = returned.astype(np.float64)
    if found.shape != wanted.shape:
        raise Refused(
            f"the device returns an array {list(found.shape)}, expected {list(wanted.shape)}; measure again"
        )
    found, wanted = found.reshape(len(found), -1), wanted.reshape(len(wanted), -1)
    apart = np.abs(found - wanted).max(axis=1)
    noise = np.square(found - wanted).sum(axis=1) / np.square(wanted.astype(np.float64)).sum(axis=1).clip(
        1e-300
    )
    same_signs = ((found > 0) == (wanted > 0)).all(axis=1)
    same_class = found.argmax(axis=1) == wanted.argmax(axis=1)
    return {
        "images": len(wanted),
        "max_abs": [float(gap) if np.isfinite(gap) else None for gap in apart],
        "scale": float(np.abs(wanted).max()),
        "same_class": int((same_signs if wanted.shape[1] == 1 else same_class).sum()),
        "same_signs": int(same_signs.sum()),
        "noise": [float(share) if np.isfinite(share) else None for share in noise],
    }
