"""Percentiles over mixes, and differences between alternating blocks: pure functions of numbers. No torch.

A mix maps each kind of run to its share. A kind is a bucket's name, or OVERFLOWED: the predicted bucket was too
small, so `full` ran too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Any, TypeVar

import numpy as np

OVERFLOWED = "full after overflow"  # no bucket's name has blanks
_ROUND_OFF = 1e-9  # of the total weight: sums of shares such as 0.1 are not exact

T = TypeVar("T")


def weighted_percentile(samples: Sequence[float], weights: Sequence[float], rank: float) -> float:
    """The smallest sample with at least `rank` percent of the weight at or below it; no interpolation.

    Samples may be in any order; weights must not be negative. ValueError when all weights are 0.
    """
    values, shares = np.asarray(samples, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if values.shape != shares.shape or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"got {len(values)} samples of weights {list(weights)}, expected weights above 0")
    order = np.argsort(values[shares > 0], kind="stable")
    reached = np.cumsum(shares[shares > 0][order])
    wanted = reached[-1] * (rank / 100 - _ROUND_OFF)
    return float(values[shares > 0][order][np.searchsorted(reached, wanted)])


def percentile_over(mix: Mapping[str, float], samples: Mapping[str, Sequence[float]], rank: float) -> float:
    """Percentile of a stream of this mix, in the samples' unit; the number of samples of a kind does not matter."""
    met = {kind: samples[kind] for kind, share in mix.items() if share > 0}
    weights = [mix[kind] / len(own) for kind, own in met.items() for _ in own]
    return weighted_percentile([sample for own in met.values() for sample in own], weights, rank)


def expected_over(mix: Mapping[str, float], latency_ms: Mapping[str, float]) -> float:
    """Σ share × latency, divided by the sum of the shares, which may be rounded."""
    met = {kind: share for kind, share in mix.items() if share > 0}
    return math.fsum(share * latency_ms[kind] for kind, share in met.items()) / math.fsum(met.values())


def after_overflow(chosen: Mapping[str, float], overflow: float, full: str) -> dict[str, float]:
    """Convert the share that chose each bucket to the share of each kind.

    Which buckets before `full` overflow is unknown, so each loses in proportion to its share.
    """
    early = math.fsum(share for name, share in chosen.items() if name != full)
    lost = min(overflow, early)
    kept = 1 - lost / early if lost else 1.0
    ran = {name: share if name == full else share * kept for name, share in chosen.items()}
    return ran | ({OVERFLOWED: lost} if lost else {})


def shares_of(kinds: Sequence[str]) -> dict[str, float]:
    """Share of the images of each kind, in order of first appearance."""
    return {kind: kinds.count(kind) / len(kinds) for kind in dict.fromkeys(kinds)}


@dataclass(frozen=True)
class Difference:
    """Differences between two measured things, ms: one for each pair of consecutive blocks."""

    per_block_ms: tuple[float, ...]
    per_block_percent: tuple[float, ...]  # of the other

    @property
    def median_ms(self) -> float:
        """Median of the blocks' differences."""
        return median(self.per_block_ms)

    @property
    def median_percent(self) -> float:
        """The same, in percent of the other."""
        return median(self.per_block_percent)

    def as_dict(self) -> dict[str, Any]:
        """Medians, extremes and each block's difference."""
        return {
            "ms": self.median_ms,
            "min_ms": min(self.per_block_ms),
            "max_ms": max(self.per_block_ms),
            "percent": self.median_percent,
            "per_block_ms": list(self.per_block_ms),
            "per_block_percent": list(self.per_block_percent),
        }


def difference(ones_ms: Sequence[float], others_ms: Sequence[float]) -> Difference:
    """From one number a block on each side, in the same order."""
    pairs = list(zip(ones_ms, others_ms, strict=True))
    return Difference(
        tuple(one - other for one, other in pairs), tuple(100 * (one / other - 1) for one, other in pairs)
    )


def alternating(groups: Sequence[Sequence[T]], count: int) -> list[T]:
    """At least `count` entries, equally many of each group; each entry is of another group than the one before."""
    return [entry for turn in zip(*_even(groups, count), strict=True) for entry in turn]


def grouped(groups: Sequence[Sequence[T]], count: int) -> list[T]:
    """The same entries as `alternating`, one group after the other."""
    return [entry for own in _even(groups, count) for entry in own]


def _even(groups: Sequence[Sequence[T]], count: int) -> list[list[T]]:
    each = math.ceil(count / len(groups))
    return [list(islice(cycle(group), each)) for group in groups]
