"""Fitting of buckets that are predicted from the count at one step. No torch.

Dynamic programming over groups of neighbours in the order of that count, followed by local search. The result is
good but not always optimal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.buckets.ladders import (
    Cost,
    Floats,
    Images,
    Ints,
    Ladder,
    costs_of,
    fits_each,
    gather,
    predict,
    price_predicted,
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
from morvit_deploy.errors import ConfigError

MAX_LEADS = 64  # largest number of pieces that groups are made of; the table is optimised over all values
# candidate schedules of a group: quantiles of its counts at every step, per mille
QUANTILES = (500, 700, 800, 900, 950, 980, 990, 995, 999, 1000)


def fit_predicted(
    counts: Ints, lead_step: int, buckets: int, cost: Cost, again: float, num_patches: int
) -> Ladder:
    """Fit at most `buckets` schedules, including full, to images of counts (n, R) predicted at `lead_step` (from 0).

    All tokens run the steps before `lead_step`, which are not routed. `again` is the cost of a second run in full.
    Images are partitioned by lead into groups of neighbours, at up to MAX_LEADS positions. The schedule of a group is
    the best of its quantiles, considering overflow; the largest leads use full. Then, while the expected cost
    decreases, each schedule is improved by coordinate descent and the table is optimised exactly over all values of
    lead. An additional bucket never increases the cost.
    """
    if not 0 <= again < math.inf:
        raise ConfigError(f"again: got {again}, expected the cost of a second run, at least 0")
    images = gather(counts, num_patches, lead_step, buckets)  # lexicographic, hence in the order of lead
    starts = np.unique(images.counts[:, lead_step], return_index=True)[1]
    bounds = np.append(starts, len(images.counts))[cuts(len(starts), MAX_LEADS)]
    prices, left, schedules = _quantile_prices(images, bounds, cost, again)

    def settled(groups: list[tuple[int, int]]) -> Ladder:
        ladder = _tabled(images, lead_step, [schedules[a, b] for a, b in groups], cost, again)
        return while_it_falls(ladder, lambda it: _tuned_predicted(images, lead_step, it, cost, again))

    return min(map(settled, partings(prices, left, buckets - 1)), key=attrgetter("expected"))


def _quantile_prices(
    images: Images, bounds: NDArray[np.intp], cost: Cost, again: float
) -> tuple[Floats, Floats, Ints]:
    """Return `prices` and `left` for `partings`, and the best schedules of groups by QUANTILES, (P, P + 1, R)."""
    num_steps, values = images.counts.shape[1], np.arange(images.num_patches + 1)
    before, below = images.before(bounds), _weights_upto(images, bounds)
    # (R, m), each an index into a flat table (R, N + 1)
    cells = np.ascontiguousarray((images.counts + np.arange(num_steps) * len(values)).T)
    prices = np.full((len(bounds) - 1, len(bounds)), np.inf)
    schedules = np.zeros((*prices.shape, num_steps), dtype=np.int64)
    for a in range(len(prices)):
        within = below[a + 1 :] - below[a]  # (groups, R, N + 1)
        totals = before[a + 1 :] - before[a]  # (groups,)
        # (groups, Q, R), ascending in Q: an image that fits one schedule fits the following ones
        tried = np.stack([(within * 1000 < q * totals[:, None, None]).sum(axis=2) for q in QUANTILES], axis=1)
        fitting = np.empty(tried.shape[:2])
        for group, b in enumerate(range(a + 1, len(bounds))):
            part = slice(bounds[a], bounds[b])
            # (R, N + 1): the first schedule whose capacity is at least a count
            first = (values > tried[group, :, :, None]).sum(axis=0, dtype=np.uint8)
            needed = first.ravel()[cells[:, part]].max(axis=0)
            fitting[group] = np.bincount(needed, images.weights[part], minlength=len(QUANTILES)).cumsum()
        costs = costs_of(cost, tried.reshape(-1, num_steps)).reshape(fitting.shape)
        priced = totals[:, None] * costs + again * (totals[:, None] - fitting)
        groups, best = np.arange(len(totals)), priced.argmin(axis=1)
        prices[a, a + 1 :], schedules[a, a + 1 :] = priced[groups, best], tried[groups, best]
    return prices, costs_of(cost, [images.full])[0] * (before[-1] - before), schedules


def _weights_upto(images: Images, bounds: NDArray[np.intp]) -> Ints:
    """Return how many images before each bound run at most v tokens at each step, (P + 1, R, N + 1)."""
    num_steps, values = images.counts.shape[1], images.num_patches + 1
    piece = np.searchsorted(bounds, np.arange(len(images.counts)), side="right")  # from 1
    cells = (piece[:, None] * num_steps + np.arange(num_steps)) * values + images.counts
    held = np.bincount(
        cells.ravel(), images.weights.repeat(num_steps), minlength=len(bounds) * num_steps * values
    )
    return held.astype(np.int64).reshape(-1, num_steps, values).cumsum(axis=2).cumsum(axis=0)


def _tuned_predicted(images: Images, lead_step: int, ladder: Ladder, cost: Cost, again: float) -> Ladder:
    """Improve each schedule but full for its predicted images, then optimise the table."""
    assert ladder.upto is not None
    chosen = predict(images.counts[:, lead_step], ladder.upto)
    schedules = []
    for j, schedule in enumerate(ladder.schedules[:-1]):
        own = images.take(chosen == j)
        bill = _bill_predicted(own.weights, again)
        schedules.append(descended(own.counts, np.asarray(schedule), cost, bill))
    return _tabled(images, lead_step, schedules, cost, again)


def _bill_predicted(weights: Ints, again: float) -> Bill:
    """Return a bill in which an image costs the schedule, and `again` in addition if it does not fit."""
    total = int(weights.sum())

    def bill(costs: Floats, order: NDArray[np.intp], ends: NDArray[np.intp]) -> Floats:
        return total * costs + again * (total - weights[order].cumsum()[ends])

    return bill


def _tabled(images: Images, lead_step: int, schedules: Iterable[Ints], cost: Cost, again: float) -> Ladder:
    """Return the ladder with the optimal ascending table for these schedules and full."""
    ordered = in_order(images, schedules, cost)
    leads, starts = np.unique(images.counts[:, lead_step], return_index=True)
    fits, costs = fits_each(images.counts, ordered), costs_of(cost, ordered)
    weights = images.weights[:, None]
    paid = np.add.reduceat(weights * costs + again * (weights * ~fits), starts, axis=0)  # (leads, B)
    best = np.full(len(leads) + 1, np.inf)  # cost with the buckets so far, up to each lead
    best[0] = 0
    came = []
    for alone in np.vstack(
        [np.zeros(len(ordered)), paid.cumsum(axis=0)]
    ).T:  # cost in one bucket, up to each lead
        before, begin = _running_min(best - alone)
        best = before + alone
        came.append(begin)
    upto, stop = [images.num_patches], int(came[-1][len(leads)])
    for begin in reversed(came[:-1]):
        upto.append(int(leads[stop - 1]) if stop else -1)  # -1: no image
        stop = int(begin[stop])
    return without_idle(price_predicted(images, lead_step, ordered, upto[::-1], cost, again))


def _running_min(values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Return the running minimum and its first position."""
    least = np.minimum.accumulate(values)
    new = np.append(True, values[1:] < least[:-1])
    return least, np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))
