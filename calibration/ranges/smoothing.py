"""Smoothing factors between a LayerNorm and the layers that read it (SmoothQuant, Xiao et al. 2023). No torch.

Channel j of the norm's output is divided by s_j, and row j of the weights that read it is multiplied by s_j. The
result is the same, but outliers of activations become smaller. A shared weight has one vector of factors, fitted to
the largest activation over all steps that apply it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MIGRATION = 0.5  # SmoothQuant's α: the fraction of the difficulty that moves to the weights
FURTHEST = 8  # largest exponent: channels beyond a factor of 256 are practically unused


def smoothing_exponents(reach: NDArray[Any], rows: NDArray[Any]) -> NDArray[np.int64]:
    """Return log2 of the factors (channels,) from the largest |activation| and |weight| of each channel.

    Powers of two are exact in float32. Channels without activations or weights are unchanged.
    """
    alive = (reach > 0) & (rows > 0)
    exponents = np.zeros(len(reach))
    exponents[alive] = MIGRATION * np.log2(reach[alive]) - (1 - MIGRATION) * np.log2(rows[alive])
    if alive.any():
        exponents[alive] -= np.median(exponents[alive])  # a common factor has no effect
    return np.clip(np.rint(exponents), -FURTHEST, FURTHEST).astype(np.int64)
