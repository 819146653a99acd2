"""The range that an activation is quantised over, from fixed-size statistics: min-max, percentile, entropy. No torch.

Two looks at the images: the first keeps the extremes of each tensor, the second counts its values between them in a
histogram. Neither grows with the number of images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.choices import Method

DEFAULT: Method = (
    "percentile"  # routed most tokens alike on the digits model, at every step and in both flavors
)

BINS = 2048  # of a histogram: eight to a level of eight bits, as TensorRT's own calibrator has it
LEVELS = 256  # of eight bits
INSIDE = (
    0.9999  # of the values that `percentile` keeps: 99.999 % is min-max, 99.9 % cuts what attention needs
)
CANDIDATES = 128  # ends that `entropy` tries on each side
UNSEEN = 1e-10  # mass where the quantised distribution has none and the true one has: a finite penalty


@dataclass
class Span:
    """The extremes of a tensor over all that was seen."""

    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: NDArray[Any]) -> None:
        """Finite values of any shape."""
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def seen(self) -> bool:
        """Has anything been added?"""
        return self.low <= self.high


def _no_counts() -> NDArray[np.int64]:
    return np.zeros(BINS, dtype=np.int64)


@dataclass
class Counts:
    """How many values fell into each of BINS equal parts of a span."""

    span: Span
    counts: NDArray[np.int64] = field(default_factory=_no_counts)

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values of any shape; what lies outside, by a last bit, goes to the end bins."""
        width = (self.span.high - self.span.low) / BINS
        if width <= 0:
            return
        places = ((values.ravel().astype(np.float64) - self.span.low) / width).astype(np.int64)
        self.counts += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)

    def edge(self, number: int) -> float:
        """The lower edge of a bin; of number BINS, the upper end."""
        return self.span.low + (self.span.high - self.span.low) * number / BINS


def counted_over(span: Span, *, symmetric: bool) -> Counts:
    """An empty histogram over a span, or over the least one around zero that holds it."""
    if not symmetric:
        return Counts(span)
    reach = max(abs(span.low), abs(span.high))
    return Counts(Span(-reach, reach))


def range_of(method: Method, span: Span, counts: Counts | None, *, symmetric: bool) -> tuple[float, float]:
    """(low, high) to quantise over; `counts` is what `counted_over` began, not needed for minmax."""
    if method == "minmax" or counts is None or not counts.counts.sum():
        return span.low, span.high
    ends = _percentile if method == "percentile" else _entropy
    first, last = ends(counts.counts, symmetric)
    return counts.edge(first), counts.edge(last)


def _percentile(counts: NDArray[np.int64], symmetric: bool) -> tuple[int, int]:
    """Bins [first, last) that hold INSIDE of the values, half of the others on either side of them."""
    below = np.concatenate([[0], counts.cumsum()])
    if symmetric:
        half = BINS // 2
        inside = below[half:] - below[half::-1]  # between -i and +i bins from zero
        wide = int(np.searchsorted(inside, INSIDE * below[-1]))
        return half - wide, half + wide
    spare = (1 - INSIDE) / 2 * below[-1]
    first = int(np.searchsorted(below, spare, side="right")) - 1
    last = int(np.searchsorted(below, below[-1] - spare))
    return first, max(last, first + 1)


def _entropy(counts: NDArray[np.int64], symmetric: bool) -> tuple[int, int]:
    """Bins [first, last) whose values, quantised to LEVELS, tell least apart from the true ones (KL divergence).

    The upper end is sought first and then the lower one: GELU's outputs reach far up and hardly below zero.
    """
    least = LEVELS // 2 if symmetric else LEVELS
    steps = np.linspace(least, BINS // 2 if symmetric else BINS, CANDIDATES).round().astype(int)
    if symmetric:
        half = BINS // 2
        wide = _best([(half - step, half + step) for step in steps], counts)
        return wide
    _, last = _best([(0, step) for step in steps], counts)
    return _best([(last - step, last) for step in steps if step <= last], counts)


def _best(intervals: Sequence[tuple[int, int]], counts: NDArray[np.int64]) -> tuple[int, int]:
    """The interval of least divergence; the widest of equal ones."""
    return min(reversed(intervals), key=lambda interval: _divergence(counts, *interval))


def _divergence(counts: NDArray[np.int64], first: int, last: int) -> float:
    """KL divergence of the counts, clipped to bins [first, last), from the same in LEVELS even groups."""
    inside = counts[first:last].astype(np.float64)
    groups = np.arange(len(inside)) * LEVELS // len(inside)
    occupied = inside > 0
    mass = np.bincount(groups, weights=inside, minlength=LEVELS)
    spread = np.bincount(groups, weights=occupied, minlength=LEVELS)
    coarse = np.where(occupied, (mass / np.maximum(spread, 1))[groups], 0.0)
    true = inside.copy()
    true[0] += counts[:first].sum()
    true[-1] += counts[last:].sum()
    if not coarse.sum():
        return float("inf")
    p, q = true / true.sum(), coarse / coarse.sum()
    where = p > 0
    return float((p[where] * np.log(p[where] / np.maximum(q[where], UNSEEN))).sum())
