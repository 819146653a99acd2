"""How far two sides' logits are apart, over the images whose routing is clear. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.verifying.findings import MARGIN, Gap

LOGIT_TOLERANCE = (
    1e-4  # × max(1, max |logit|): float32 round-off over 12 layers, and 20 times above what is seen
)
EXACT_TOLERANCE = (
    1e-9  # × the same: both sides of the unrolling gap are float64, only the order of sums differs
)


@dataclass
class LogitPairs:
    """Two sides' logits of the same images, chunk by chunk."""

    expected: list[NDArray[Any]] = field(default_factory=list)
    actual: list[NDArray[Any]] = field(default_factory=list)

    def add(self, expected: NDArray[Any], actual: NDArray[Any]) -> None:
        """Logits (images, classes) of both sides."""
        self.expected.append(expected)
        self.actual.append(actual)

    def snr_db(self) -> float:
        """Signal to noise of the actual logits: infinite when equal, minus infinity when one is not finite."""
        signal = sum(float(np.square(part.astype(np.float64)).sum()) for part in self.expected)
        pairs = zip(self.expected, self.actual, strict=True)
        noise = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in pairs)
        if not signal or not math.isfinite(noise):
            return -math.inf
        return 10 * math.log10(signal / noise) if noise else math.inf

    def gap(self, tolerance: float) -> Gap:
        """How far the two sides are apart."""
        if not self.expected:
            return Gap(0.0, tolerance, 1.0)
        return gap_of(np.concatenate(self.expected), np.concatenate(self.actual), tolerance)


def gap_of(expected: NDArray[Any], actual: NDArray[Any], tolerance: float) -> Gap:
    """How far logits (images, classes) are apart; `tolerance` is scaled by max(1, max |expected|)."""
    if not len(expected):
        return Gap(0.0, tolerance, 1.0)
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN becomes an infinite difference below
        difference = float(np.abs(a - b).max())
    same = float((a.argmax(axis=-1) == b.argmax(axis=-1)).mean())
    limit = tolerance * max(1.0, float(np.abs(a).max()))
    return Gap(difference if np.isfinite(difference) else float("inf"), limit, same)


def worst_of(gaps: list[Gap]) -> Gap:
    """The widest of several gaps, relative to what is allowed."""
    lowest = min(gap.top1_agreement for gap in gaps)
    widest = max(
        gaps, key=lambda gap: (gap.max_abs / gap.tolerance, gap.max_abs)
    )  # without tolerance, the second
    return Gap(widest.max_abs, widest.tolerance, lowest)


def flipped_margins(expected: NDArray[Any], actual: NDArray[Any]) -> list[float]:
    """Of images whose class differs between logits (images, classes): how far the expected two best are apart."""
    best = np.sort(expected, axis=-1)[:, -2:]
    flips = expected.argmax(axis=-1) != actual.argmax(axis=-1)
    return [float(margin) for margin in (best[:, -1] - best[:, 0])[flips]]


def is_clear(margins: NDArray[Any]) -> NDArray[np.bool_]:
    """Images that are compared. NaN is: a model that returns NaN must fail, not be excused."""
    return ~(margins <= MARGIN)


def shares_of(counts: list[NDArray[np.int64]]) -> list[float]:
    """Of each step, from counts (steps, 2) of those alike and of all; empty without any."""
    if not counts:
        return []
    return [same / of if of else 1.0 for same, of in np.sum(counts, axis=0).tolist()]
