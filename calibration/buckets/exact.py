"""Fitting of buckets if the counts are known before the bucket is chosen. No torch.

Dynamic programming over groups of neighbours in one order of the images, followed by local search. The result is
good but not always optimal.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.buckets.ladders import (
    Cost,
    Floats,
    Images,
    Ints,
    Ladder,
    assign,
    costs_of,
    fits_each,
    gather,
    price_exact,
)
from morvit_deploy.calibration.buckets.search import (
    Bill,
    cuts,
    descended,
    in_order,
    partings,
    while_it_falls,
    without_idle,
)

MAX_CUTS = 1024  # largest number of pieces that groups are made of


def fit_exact(counts: Ints, buckets: int, cost: Cost, num_patches: int) -> Ladder:
    """Fit at most `buckets` schedules, including full, to images of counts (n, R) whose bucket is chosen exactly.

    Distinct counts are sorted by their own cost and partitioned into groups of neighbours. The schedule of a group is
    its envelope, the largest count of each step; the most expensive counts use full. The partition is optimal for up
    to MAX_CUTS distinct counts; above, cuts are considered only at every k-th of them. Then, while the expected cost
    decreases, each schedule is improved by coordinate descent, images are assigned to the cheapest schedule that
    fits, and schedules shrink to the envelope of their images. An additional bucket never increases the cost.
    """
    images = gather(counts, num_patches, buckets=buckets)
    costs = costs_of(cost, images.counts)
    images = images.take(np.argsort(costs, kind="stable"))
    bounds = cuts(len(costs), MAX_CUTS)
    prices, left = _envelope_prices(images, bounds, cost)

    def settled(groups: list[tuple[int, int]]) -> Ladder:
        envelopes = [images.counts[bounds[a] : bounds[b]].max(axis=0) for a, b in groups]
        ladder = _shrunk(images, envelopes, cost)
        return while_it_falls(ladder, lambda it: _tuned_exact(images, it, cost))

    return min(map(settled, partings(prices, left, buckets - 1)), key=attrgetter("expected"))


def _envelope_prices(images: Images, bounds: NDArray[np.intp], cost: Cost) -> tuple[Floats, Floats]:
    """Return `prices` and `left` for `partings`, with the images of a group in its envelope."""
    before = images.before(bounds)
    pieces = np.maximum.reduceat(images.counts, bounds[:-1], axis=0)
    prices = np.full((len(pieces), len(bounds)), np.inf)
    for a in range(len(pieces)):
        envelopes = np.maximum.accumulate(pieces[a:])
        # equal envelopes have equal costs
        grew = np.append(True, (np.diff(envelopes, axis=0) > 0).any(axis=1))
        costs = costs_of(cost, envelopes[grew])[grew.cumsum() - 1]
        prices[a, a + 1 :] = costs * (before[a + 1 :] - before[a])
    return prices, costs_of(cost, [images.full])[0] * (before[-1] - before)


def _shrunk(images: Images, schedules: Sequence[Ints], cost: Cost) -> Ladder:
    """Assign each image to the cheapest schedule that fits, and shrink schedules to the envelope of their images."""
    ordered = in_order(images, schedules, cost)
    chosen = assign(images.counts, ordered, costs_of(cost, ordered))
    served = [images.counts[chosen == j] for j in range(len(ordered) - 1)]
    envelopes = [counts.max(axis=0) for counts in served if len(counts)]
    return without_idle(price_exact(images, in_order(images, envelopes, cost), cost))


def _tuned_exact(images: Images, ladder: Ladder, cost: Cost) -> Ladder:
    """Improve each schedule but full for the images that no cheaper one fits, then shrink it."""
    schedules = [np.asarray(schedule) for schedule in ladder.schedules]
    for j in reversed(range(len(schedules) - 1)):
        costs = costs_of(cost, schedules)
        others = np.where(fits_each(images.counts, schedules), costs, np.inf)
        others[:, j] = np.inf
        otherwise = others.min(axis=1)  # cost of each image without this bucket
        own = otherwise > costs[j]
        bill = _bill_exact(images.weights[own], otherwise[own])
        schedules[j] = descended(images.counts[own], schedules[j], cost, bill)
    return _shrunk(images, schedules[:-1], cost)


def _bill_exact(weights: Ints, otherwise: Floats) -> Bill:
    """Return a bill in which an image costs the schedule if it fits and is cheaper, else `otherwise` (m,)."""
    classes = [(price, weights * (otherwise == price)) for price in np.unique(otherwise)]

    def bill(costs: Floats, order: NDArray[np.intp], ends: NDArray[np.intp]) -> Floats:
        saved = [np.maximum(price - costs, 0) * own[order].cumsum()[ends] for price, own in classes]
        paid: Floats = (weights * otherwise).sum() - sum(saved, np.zeros(len(costs)))
        return paid

    return bill
