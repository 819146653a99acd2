"""Mixes, percentiles over them, and differences between blocks taken in turn: pure functions of numbers. No torch.

A mix gives a share to each kind of run. A kind is a bucket's name, or OVERFLOWED: the predicted bucket was too
small, and `full` was run as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from statistics import median
from typing import Any, TypeVar

import numpy as np

OVERFLOWED = "full after overflow"  # with blanks, as no bucket is called
_ROUND_OFF = 1e-9  # of the total weight: sums of shares such as 0.1 are not exact

T = TypeVar("T")


def weighted_percentile(samples: Sequence[float], weights: Sequence[float], rank: float) -> float:
    """The least sample at or below which lies `rank` per cent of the weight; no interpolation.

    Samples come in any order, each with a weight that is not negative. ValueError when nothing has a weight.
    """
    values, shares = np.asarray(samples, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if values.shape != shares.shape or (shares < 0).any() or not shares.sum() > 0:
        raise ValueError(f"got {len(values)} samples of weights {list(weights)}, expected weights above 0")
    order = np.argsort(values[shares > 0], kind="stable")
    reached = np.cumsum(shares[shares > 0][order])
    wanted = reached[-1] * (rank / 100 - _ROUND_OFF)
    return float(values[shares > 0][order][np.searchsorted(reached, wanted)])


def percentile_over(mix: Mapping[str, float], samples: Mapping[str, Sequence[float]], rank: float) -> float:
    """Percentile of a stream of this mix, however many samples each kind has; in the samples' unit."""
    met = {kind: samples[kind] for kind, share in mix.items() if share > 0}
    weights = [mix[kind] / len(own) for kind, own in met.items() for _ in own]
    return weighted_percentile([sample for own in met.values() for sample in own], weights, rank)


def expected_over(mix: Mapping[str, float], latency_ms: Mapping[str, float]) -> float:
    """Σ share × latency, divided by the sum of the shares, as a plan may have rounded them."""
    met = {kind: share for kind, share in mix.items() if share > 0}
    return math.fsum(share * latency_ms[kind] for kind, share in met.items()) / math.fsum(met.values())


def after_overflow(chosen: Mapping[str, float], overflow: float, full: str) -> dict[str, float]:
    """From the share each bucket is chosen for to the share of each kind.

    Which of the buckets before `full` overflow is not known: each gives in proportion to its share.
    """
    early = math.fsum(share for name, share in chosen.items() if name != full)
    lost = min(overflow, early)
    kept = 1 - lost / early if lost else 1.0
    answered = {name: share if name == full else share * kept for name, share in chosen.items()}
    return answered | ({OVERFLOWED: lost} if lost else {})


def shares_of(kinds: Sequence[str]) -> dict[str, float]:
    """Part of the images that each kind has, in the order of the first of each."""
    return {kind: kinds.count(kind) / len(kinds) for kind in dict.fromkeys(kinds)}


@dataclass(frozen=True)
class Difference:
    """One thing minus another, ms: a difference for each pair of blocks taken one after the other."""

    per_block_ms: tuple[float, ...]
    per_block_percent: tuple[float, ...]  # of the other

    @property
    def median_ms(self) -> float:
        """The middle one of the blocks' differences."""
        return median(self.per_block_ms)

    @property
    def median_percent(self) -> float:
        """The same, in per cent of the other."""
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
    """One number a block on each side, in the same order."""
    pairs = list(zip(ones_ms, others_ms, strict=True))
    return Difference(
        tuple(one - other for one, other in pairs), tuple(100 * (one / other - 1) for one, other in pairs)
    )


def alternating(groups: Sequence[Sequence[T]], count: int) -> list[T]:
    """At least `count` entries, as many of each group, whose group changes from one to the next."""
    return [entry for turn in zip(*_even(groups, count), strict=True) for entry in turn]


def grouped(groups: Sequence[Sequence[T]], count: int) -> list[T]:
    """The same entries as `alternating`, one group after the other."""
    return [entry for own in _even(groups, count) for entry in own]


def _even(groups: Sequence[Sequence[T]], count: int) -> list[list[T]]:
    each = math.ceil(count / len(groups))
    return [list(islice(cycle(group), each)) for group in groups]
