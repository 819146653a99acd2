"""Smoothing factors between a LayerNorm and the layers that read it (SmoothQuant, Xiao et al. 2023). No torch.

Channel j of the norm's output is divided by s_j and row j of every reading weight multiplied by it: nothing changes
but what is hard to quantise. A shared weight has one vector for all steps that apply it, fitted to the largest
activation over all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIGRATION = 0.5  # how much of the difficulty moves to the weights: SmoothQuant's α, even shares
FURTHEST = 8  # powers of two: beyond a factor of 256 a channel is dead, and its neighbours would pay for it


def smoothing_exponents(reach: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.int64]:
    """log2 of the factors s (channels,), from each channel's largest |activation| and largest |weight| in its row.

    Powers of two, so that folding them changes no bit in float32 either. A channel that is never active, or whose
    weights are all zero, is left as it is.
    """
    alive = (reach > 0) & (rows > 0)
    exponents = np.zeros(len(reach))
    exponents[alive] = MIGRATION * np.log2(reach[alive]) - (1 - MIGRATION) * np.log2(rows[alive])
    if alive.any():
        exponents[alive] -= np.median(exponents[alive])  # a common factor changes nothing
    return np.clip(np.rint(exponents), -FURTHEST, FURTHEST).astype(np.int64)
