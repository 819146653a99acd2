"""Differences between the logits of two models. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.answers.heads import SOFTMAX, decision_margins, same_decisions
from morvit_deploy.verifying.findings import MARGIN, Gap

# both are scaled by max(1, max |logit|)
LOGIT_TOLERANCE = 1e-4  # float32 round-off over 12 layers; 20 times the largest difference observed
EXACT_TOLERANCE = 1e-9  # both sides of the unrolling gap are float64, and only the order of sums differs


@dataclass
class LogitPairs:
    """The logits of two models for the same images, in chunks; `activation` of the head decides on classes."""

    activation: str = SOFTMAX
    expected: list[NDArray[Any]] = field(default_factory=list)
    actual: list[NDArray[Any]] = field(default_factory=list)

    def add(self, expected: NDArray[Any], actual: NDArray[Any]) -> None:
        """Add logits (images, classes) of both models."""
        self.expected.append(expected)
        self.actual.append(actual)

    def snr_db(self) -> float:
        """Signal-to-noise ratio of the actual logits: infinite if equal, minus infinity if any is not finite."""
        signal = sum(float(np.square(part.astype(np.float64)).sum()) for part in self.expected)
        pairs = zip(self.expected, self.actual, strict=True)
        noise = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in pairs)
        if not signal or not math.isfinite(noise):
            return -math.inf
        return 10 * math.log10(signal / noise) if noise else math.inf

    def median_snr_db(self) -> float:
        """Median over the images of the signal-to-noise ratio of their logits; infinite without images."""
        pairs = zip(self.expected, self.actual, strict=True)
        ratios = [snr_db_of(expected, actual) for expected, actual in pairs]
        return float(np.median(np.concatenate(ratios))) if ratios and sum(map(len, ratios)) else math.inf

    def gap(self, tolerance: float) -> Gap:
        """Return the gap between the two models."""
        if not self.expected:
            return Gap(0.0, tolerance, 1.0)
        expected, actual = np.concatenate(self.expected), np.concatenate(self.actual)
        return gap_of(expected, actual, tolerance, self.activation)


def gap_of(expected: NDArray[Any], actual: NDArray[Any], tolerance: float, activation: str = SOFTMAX) -> Gap:
    """Return the gap between logits (images, classes); `tolerance` is scaled by max(1, max |expected|)."""
    if not len(expected):
        return Gap(0.0, tolerance, 1.0)
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN becomes infinity below
        difference = float(np.abs(a - b).max())
    same = float(same_decisions(a, b, activation).mean())
    limit = tolerance * max(1.0, float(np.abs(a).max()))
    return Gap(difference if np.isfinite(difference) else float("inf"), limit, same)


def snr_db_of(expected: NDArray[Any], actual: NDArray[Any]) -> NDArray[np.float64]:
    """Return each image's signal-to-noise ratio in dB: infinite if equal, minus infinity if any is not finite."""
    signal = np.square(expected.astype(np.float64)).sum(axis=-1)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        noise = np.square(expected.astype(np.float64) - actual).sum(axis=-1)
        ratios = 10 * np.log10(signal / noise)
    ratios = np.where(noise == 0, np.inf, ratios)
    known: NDArray[np.float64] = np.where(np.isfinite(noise), ratios, -np.inf)
    return known


def worst_of(gaps: list[Gap]) -> Gap:
    """Return the largest of several gaps relative to its tolerance, with the lowest agreement of all."""
    lowest = min(gap.top1_agreement for gap in gaps)
    widest = max(gaps, key=lambda gap: (gap.max_abs / gap.tolerance, gap.max_abs))
    return Gap(widest.max_abs, widest.tolerance, lowest)


def flipped_margins(expected: NDArray[Any], actual: NDArray[Any], activation: str = SOFTMAX) -> list[float]:
    """Return how far the expected logits are from another decision, for each image whose decision changes."""
    flips = ~same_decisions(expected, actual, activation)
    return [float(margin) for margin in decision_margins(expected, activation)[flips]]


def is_clear(clearances: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which images are compared, by `Trace.clearance`. NaN is, so that a model that returns NaN fails."""
    return ~(clearances <= MARGIN)


def shares_of(counts: list[NDArray[np.int64]]) -> list[float]:
    """Return the fraction at each step from counts (steps, 2) of equal decisions and of all; empty without counts."""
    if not counts:
        return []
    return [same / of if of else 1.0 for same, of in np.sum(counts, axis=0).tolist()]
