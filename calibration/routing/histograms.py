"""Router logits counted in a histogram of fixed size, and the threshold that keeps a number of them. No torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import CheckpointError, ConfigError

BINS = 65_536
REACH = 20.0  # asinh of the outermost edges: |z| up to 2.4e8, and bins 6e-4 wide around 0
FURTHEST = float(np.finfo(np.float32).max)


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(BINS, dtype=np.int64)


@dataclass(eq=False)
class Histogram:
    """How many logits fell into each bin: `counts` int64 (BINS,), all that there is to store.

    Bins are equally wide in asinh(z), which is z near 0 and log |z| far from it. The two end bins also hold what
    lies beyond them. Sums of integers: merging gives the same bits in any order.
    """

    counts: NDArray[np.int64] = field(default_factory=_no_counts)

    def __post_init__(self) -> None:
        if self.counts.shape != (BINS,) or self.counts.dtype != np.int64 or (self.counts < 0).any():
            raise ConfigError(
                f"histogram: got counts {self.counts.dtype} {self.counts.shape}, "
                f"expected int64 ({BINS},), none below 0"
            )

    @classmethod
    def empty(cls) -> Histogram:
        """Nothing counted yet."""
        return cls()

    @property
    def total(self) -> int:
        """How many logits were counted."""
        return int(self.counts.sum())

    def add(self, logits: NDArray[Any]) -> None:
        """Count logits of any shape. CheckpointError, and nothing counted, when one is NaN or infinite."""
        values = np.asarray(logits, dtype=np.float64).ravel()
        broken = int((~np.isfinite(values)).sum())
        if broken:
            raise CheckpointError(
                f"router logits: got NaN or Inf in {broken} of {values.size}, expected finite numbers; "
                "the checkpoint's weights are damaged or too large for its precision"
            )
        self.counts += np.bincount(_bins_of(values), minlength=BINS)

    def merge(self, other: Histogram) -> Histogram:
        """A new histogram of all that either counted."""
        return Histogram(self.counts + other.counts)


def threshold_for(histogram: Histogram, target: int) -> float:
    """The τ that `target` of the counted logits reach (z ≥ τ), to within the logits of one bin.

    Inside the bin logits are taken to be evenly spread in asinh(z). No more than none (`target` ≤ 0) and no less
    than all (`target` ≥ total) lie in the empty bin beside the occupied ones, clear of every logit's rounding.
    τ is a float32 number: runtimes in float32 and the reference in float64 compare with the same one.
    ConfigError when nothing was counted.
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
    """The bin of each finite value."""
    positions = (np.arcsinh(values) / REACH + 1) * (BINS // 2)
    return np.clip(positions, 0, BINS - 1).astype(np.int64)


def _logit_at(position: float) -> float:
    """The logit at a position on the axis of bins: whole numbers are lower edges, BINS // 2 is exactly 0."""
    return float(np.sinh(REACH * (position / (BINS // 2) - 1)))


def _inside(index: int, share: float) -> float:
    """The float32 number nearest to `share` of the way up bin `index`."""
    threshold = np.float32(_logit_at(index + share))
    if float(threshold) < _logit_at(index):  # rounded out of the bin, into the logits of the one below
        threshold = np.nextafter(threshold, np.float32(np.inf))
    return float(threshold)


def _beside(index: int) -> float:
    """The middle of an empty bin; past the end bins, which are open, the furthest float32 number."""
    if not 0 <= index < BINS:
        return FURTHEST if index > 0 else -FURTHEST
    return float(np.float32(_logit_at(index + 0.5)))
