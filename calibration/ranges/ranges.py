"""Activation ranges for quantisation by min-max, percentile or entropy, from statistics of fixed size. No torch.

There are two passes over the images: the first records the extremes of each tensor, the second a histogram of its
values between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.choices import Method

DEFAULT: Method = "percentile"  # best token agreement on the digits model, at every step and in both flavors

BINS = 2048  # of a histogram: eight per int8 level, as in TensorRT's calibrator
LEVELS = 256  # of int8
# fraction of values that `percentile` keeps: 99.999 % is close to min-max, 99.9 % clips values that attention needs
INSIDE = 0.9999
CANDIDATES = 128  # candidates of `entropy` for each end of the range
UNSEEN = 1e-10  # probability in place of zero in the quantised distribution, for a finite divergence


@dataclass
class Span:
    """The extremes of a tensor."""

    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: NDArray[Any]) -> None:
        """Add finite values of any shape."""
        if values.size:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def seen(self) -> bool:
        """Whether any value has been added."""
        return self.low <= self.high


@dataclass
class Counts:
    """A histogram of BINS equal bins over a span."""

    span: Span
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    def add(self, values: NDArray[Any]) -> None:
        """Count finite values of any shape; values outside the span count in the end bins."""
        width = (self.span.high - self.span.low) / BINS
        if width <= 0:
            return
        places = ((values.ravel().astype(np.float64) - self.span.low) / width).astype(np.int64)
        self.counts += np.bincount(np.clip(places, 0, BINS - 1), minlength=BINS)

    def edge(self, number: int) -> float:
        """Return the lower edge of a bin; for number BINS, the upper end of the span."""
        return self.span.low + (self.span.high - self.span.low) * number / BINS


def counted_over(span: Span, *, symmetric: bool) -> Counts:
    """Return an empty histogram over a span, or over the smallest symmetric span that contains it."""
    if not symmetric:
        return Counts(span)
    reach = max(abs(span.low), abs(span.high))
    return Counts(Span(-reach, reach))


def range_of(method: Method, span: Span, counts: Counts | None, *, symmetric: bool) -> tuple[float, float]:
    """Return the range (low, high) to quantise over; `counts` is the histogram, which minmax does not need."""
    if method == "minmax" or counts is None or not counts.counts.sum():
        return span.low, span.high
    ends = _percentile if method == "percentile" else _entropy
    first, last = ends(counts.counts, symmetric)
    return counts.edge(first), counts.edge(last)


def _percentile(counts: NDArray[np.int64], symmetric: bool) -> tuple[int, int]:
    """Return bins [first, last) that contain a fraction INSIDE of the values, with equal tails."""
    below = np.concatenate([[0], counts.cumsum()])
    if symmetric:
        half = BINS // 2
        inside = below[half:] - below[half::-1]  # values within i bins of zero
        wide = int(np.searchsorted(inside, INSIDE * below[-1]))
        return half - wide, half + wide
    spare = (1 - INSIDE) / 2 * below[-1]
    first = int(np.searchsorted(below, spare, side="right")) - 1
    last = int(np.searchsorted(below, below[-1] - spare))
    return first, max(last, first + 1)


def _entropy(counts: NDArray[np.int64], symmetric: bool) -> tuple[int, int]:
    """Return bins [first, last) with the smallest KL divergence between values and values quantised to LEVELS.

    The upper end is optimised before the lower one, because GELU outputs are mostly positive.
    """
    least = LEVELS // 2 if symmetric else LEVELS
    steps = np.linspace(least, BINS // 2 if symmetric else BINS, CANDIDATES).round().astype(int)
    if symmetric:
        half = BINS // 2
        return _best([(half - step, half + step) for step in steps], counts)
    _, last = _best([(0, step) for step in steps], counts)
    return _best([(last - step, last) for step in steps if step <= last], counts)


def _best(intervals: Sequence[tuple[int, int]], counts: NDArray[np.int64]) -> tuple[int, int]:
    """Return the interval with the smallest divergence; on a tie, the widest."""
    return min(reversed(intervals), key=lambda interval: _divergence(counts, *interval))


def _divergence(counts: NDArray[np.int64], first: int, last: int) -> float:
    """KL divergence between counts clipped to bins [first, last) and the same counts in LEVELS equal groups."""
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
