"""Buckets fitted where the counts are known before the bucket is chosen. No torch.

A dynamic program over groups of neighbours in one order of the images, then local search: what it finds is good, and
not always the best of all ladders.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    expected_cost,
    in_order,
    partings,
    while_it_falls,
    without_idle,
)

MAX_CUTS = 1024  # pieces that groups are made of


def fit_exact(counts: Ints, buckets: int, cost: Cost, num_patches: int) -> Ladder:
    """At most `buckets` schedules, full among them, for images of counts (n, R) whose bucket is chosen exactly.

    Distinct counts stand in the order of their own cost and are parted into groups of neighbours, each with its
    envelope (the greatest count of each step) as schedule; the dearest are left to full. The parting is the best
    there is for up to MAX_CUTS distinct counts; above, cuts are allowed only at every k-th of them. Then each
    schedule descends coordinate by coordinate, images go to the cheapest that fits and schedules shrink to the
    envelope of what they serve, while the expected cost falls. One more bucket never costs more.
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

    return min(map(settled, partings(prices, left, buckets - 1)), key=expected_cost)


def _envelope_prices(images: Images, bounds: NDArray[np.intp], cost: Cost) -> tuple[Floats, Floats]:
    """Prices and left of `partings`, a group's images all in its envelope."""
    before = images.before(bounds)
    pieces = np.maximum.reduceat(images.counts, bounds[:-1], axis=0)
    prices = np.full((len(pieces), len(bounds)), np.inf)
    for a in range(len(pieces)):
        envelopes = np.maximum.accumulate(pieces[a:])
        grew = np.append(True, (np.diff(envelopes, axis=0) > 0).any(axis=1))  # the others cost the same
        costs = costs_of(cost, envelopes[grew])[grew.cumsum() - 1]
        prices[a, a + 1 :] = costs * (before[a + 1 :] - before[a])
    return prices, costs_of(cost, [images.full])[0] * (before[-1] - before)


def _shrunk(images: Images, schedules: Sequence[Ints], cost: Cost) -> Ladder:
    """Each image to the cheapest that fits, each schedule to the envelope of its images, full added."""
    ordered = in_order(images, schedules, cost)
    chosen = assign(images.counts, ordered, costs_of(cost, ordered))
    served = [images.counts[chosen == j] for j in range(len(ordered) - 1)]
    envelopes = [counts.max(axis=0) for counts in served if len(counts)]
    return without_idle(price_exact(images, in_order(images, envelopes, cost), cost))


def _tuned_exact(images: Images, ladder: Ladder, cost: Cost) -> Ladder:
    """Each schedule but full descends for the images that no cheaper one serves, then shrinks."""
    schedules = [np.asarray(schedule) for schedule in ladder.schedules]
    for j in reversed(range(len(schedules) - 1)):
        costs = costs_of(cost, schedules)
        others = np.where(fits_each(images.counts, schedules), costs, np.inf)
        others[:, j] = np.inf
        otherwise = others.min(axis=1)  # what each image costs without this bucket
        own = otherwise > costs[j]
        bill = _bill_exact(images.weights[own], otherwise[own])
        schedules[j] = descended(images.counts[own], schedules[j], cost, bill)
    return _shrunk(images, schedules[:-1], cost)


def _bill_exact(weights: Ints, otherwise: Floats) -> Bill:
    """An image costs the schedule if it fits and that is cheaper, else `otherwise` (m,), one of a few prices."""
    classes = [(price, weights * (otherwise == price)) for price in np.unique(otherwise)]

    def bill(costs: Floats, order: NDArray[np.intp], ends: NDArray[np.intp]) -> Floats:
        saved = [np.maximum(price - costs, 0) * own[order].cumsum()[ends] for price, own in classes]
        paid: Floats = (weights * otherwise).sum() - sum(saved, np.zeros(len(costs)))
        return paid

    return bill
