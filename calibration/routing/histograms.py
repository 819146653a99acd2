"""Histograms of router logits of fixed size, and the threshold that keeps a given number of logits. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.answers import check_finite
from morvit_deploy.errors import ConfigError

BINS = 65_536
REACH = 20.0  # asinh of the outermost edges: |z| up to 2.4e8, and bins 6e-4 wide around 0
FURTHEST = float(np.finfo(np.float32).max)


@dataclass(eq=False)
class Histogram:
    """The number of logits in each bin, `counts` int64 (BINS,).

    Bins have equal widths in asinh(z), which is linear near 0 and logarithmic for large |z|. The two end bins also
    count the values beyond them. Counts are integers, so merging is independent of the order.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    def __post_init__(self) -> None:
        if self.counts.shape != (BINS,) or self.counts.dtype != np.int64 or (self.counts < 0).any():
            raise ConfigError(
                f"histogram: got counts {self.counts.dtype} {self.counts.shape}, "
                f"expected int64 ({BINS},), none below 0"
            )

    @property
    def total(self) -> int:
        """Number of logits counted."""
        return int(self.counts.sum())

    def add(self, logits: NDArray[Any]) -> None:
        """Count logits of any shape; AnswerError, without counting any, if one is NaN or infinite."""
        values = np.asarray(logits, dtype=np.float64).ravel()
        check_finite(values, "router logits")
        self.counts += np.bincount(_bins_of(values), minlength=BINS)

    def merge(self, other: Histogram) -> Histogram:
        """Return the sum of two histograms."""
        return Histogram(self.counts + other.counts)


def threshold_for(histogram: Histogram, target: int) -> float:
    """Return the threshold τ that `target` of the counted logits reach (z ≥ τ), up to the logits of one bin.

    Logits within a bin are assumed to be uniform in asinh(z). For `target` ≤ 0 and `target` ≥ total, τ is in the
    empty bin next to the occupied ones, away from the rounding of any logit. τ is a float32 number, so that float32
    runtimes and the float64 reference use the same one. Raises ConfigError for an empty histogram.
    """
    counts = histogram.counts
    occupied = np.flatnonzero(counts)
    if not occupied.size:
        raise ConfigError(
            "threshold: got an empty histogram of router logits, expected at least 1; calibrate with more images"
        )
    if target <= 0:
        return _beside(int(occupied[-1]) + 1)
    if target >= histogram.total:
        return _beside(int(occupied[0]) - 1)
    reached = counts[::-1].cumsum()[::-1]  # logits in this bin and above
    index = int(np.flatnonzero(reached >= target)[-1])
    wanted = target - int(reached[index] - counts[index])  # of this bin's logits, 1 … all
    return _inside(index, 1 - wanted / int(counts[index]))


def _bins_of(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the bin of each finite value."""
    positions = (np.arcsinh(values) / REACH + 1) * (BINS // 2)
    return np.clip(positions, 0, BINS - 1).astype(np.int64)


def _logit_at(position: float) -> float:
    """Return the logit at a position on the bin axis: integers are lower edges, BINS // 2 is exactly 0."""
    return float(np.sinh(REACH * (position / (BINS // 2) - 1)))


def _inside(index: int, share: float) -> float:
    """Return the float32 number nearest to the fraction `share` of bin `index`."""
    threshold = np.float32(_logit_at(index + share))
    if float(threshold) < _logit_at(index):  # rounded down into the bin below
        threshold = np.nextafter(threshold, np.float32(np.inf))
    return float(threshold)


def _beside(index: int) -> float:
    """Return the middle of an empty bin; beyond the end bins, which are open, the largest float32 number."""
    if not 0 <= index < BINS:
        return FURTHEST if index > 0 else -FURTHEST
    return float(np.float32(_logit_at(index + 0.5)))
