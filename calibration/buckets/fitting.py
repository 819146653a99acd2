"""Buckets fitted to how many tokens ran each step: the ladder of schedules with the least expected cost. No torch.

An image has counts n_1 … n_R, never rising: how many patch tokens ran each step. A schedule fits it when no count
exceeds its capacity. A ladder is a few schedules, cheapest first, the last `full`: all N tokens in every step, which
fits every image. Two dispatch rules:

- exact (token_choice): the counts are known before the bucket is chosen; an image goes to the cheapest that fits.
- predicted (expert_choice): the bucket follows from one of the counts, `lead`, by a table of upper bounds; an image
  that does not fit has overflowed and is run again in `full`.

Both fits begin with a dynamic program over groups of neighbours in one order of the images and go on with local
search: what they find is good, and not always the best of all ladders. Images are gathered into distinct counts
with multiplicities before anything else, so their order changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import ConfigError

MAX_CUTS = 1024  # pieces that fit_exact makes groups of
MAX_LEADS = 64  # pieces that fit_predicted makes groups of; its table is then set among all values
# per mille of a group's images, in every step
QUANTILES = (500, 700, 800, 900, 950, 980, 990, 995, 999, 1000)
GAIN = 0.02  # of the expected cost: what one more graph on the device must save

Schedule = tuple[int, ...]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# schedules (m, R) -> what one image costs in each, float64 (m,): MACs or ms, never falling as a capacity rises
Cost = Callable[[Ints], Floats]
# costs (k,) of growing schedules, images in the order in which they begin to fit, where the last that fits each
# stands (k,) -> what all images cost with each schedule (k,)
Bill = Callable[[Floats, NDArray[np.intp], NDArray[np.intp]], Floats]


@dataclass(frozen=True)
class Ladder:
    """Schedules, cheapest first and the last full, and what they cost on the images they were judged by."""

    schedules: tuple[Schedule, ...]
    upto: tuple[int, ...] | None  # predicted: the greatest lead each bucket serves, rising, the last N
    expected: float  # mean cost of an image, second runs included
    shares: tuple[float, ...]  # part of the images each bucket is chosen for
    overflow: float  # part of the images run again in full; 0 for exact


def assign(counts: Ints, schedules: Sequence[Schedule], costs: Floats) -> NDArray[np.intp]:
    """The cheapest schedule that fits each image: counts (n, R), costs (B,) to indices (n,); the first of equals.

    ConfigError when an image fits none.
    """
    fits = _fits_each(counts, schedules)
    if not fits.any(axis=1).all():
        raise ConfigError(
            f"schedules: got {list(schedules)}, expected that one fits each image; let the last be full"
        )
    return np.where(fits, costs, np.inf).argmin(axis=1)


def predict(lead: Ints, upto: Sequence[int]) -> NDArray[np.intp]:
    """The bucket that each image's `lead` (n,) calls for: the first whose upper bound it does not exceed."""
    return np.searchsorted(np.asarray(upto), lead, side="left")


def evaluate_exact(counts: Ints, schedules: Sequence[Schedule], cost: Cost) -> Ladder:
    """`schedules` (the last full) judged on images of counts (n, R) when the bucket is chosen exactly."""
    return _exact(_gather(counts, _checked_full(schedules)), schedules, cost)


def evaluate_predicted(
    counts: Ints, lead_step: int, schedules: Sequence[Schedule], upto: Sequence[int], cost: Cost, again: float
) -> Ladder:
    """`schedules` (the last full) and the table `upto` judged on images of counts (n, R).

    The bucket follows from the count at `lead_step` (from 0); an image that does not fit costs `again` on top.
    """
    num_patches = _checked_full(schedules)
    if len(upto) != len(schedules) or list(upto) != sorted(upto) or upto[-1] != num_patches:
        raise ConfigError(
            f"upto: got {list(upto)}, expected {len(schedules)} rising bounds, the last {num_patches}"
        )
    return _predicted(_gather(counts, num_patches, lead_step), lead_step, schedules, upto, cost, again)


def fit_exact(counts: Ints, buckets: int, cost: Cost, num_patches: int) -> Ladder:
    """At most `buckets` schedules, full among them, for images of counts (n, R) whose bucket is chosen exactly.

    Distinct counts stand in the order of their own cost and are parted into groups of neighbours, each with its
    envelope (the greatest count of each step) as schedule; the dearest are left to full. The parting is the best
    there is for up to MAX_CUTS distinct counts; above, cuts are allowed only at every k-th of them. Then each
    schedule descends coordinate by coordinate, images go to the cheapest that fits and schedules shrink to the
    envelope of what they serve, while the expected cost falls. One more bucket never costs more.
    """
    images = _gather(counts, num_patches, buckets=buckets)
    costs = _costs(cost, images.counts)
    images = images.take(np.argsort(costs, kind="stable"))
    bounds = _cuts(len(costs), MAX_CUTS)
    prices, left = _envelope_prices(images, bounds, cost)

    def settled(groups: list[tuple[int, int]]) -> Ladder:
        envelopes = [images.counts[bounds[a] : bounds[b]].max(axis=0) for a, b in groups]
        ladder = _shrunk(images, envelopes, cost)
        return _while_it_falls(ladder, lambda it: _tuned_exact(images, it, cost))

    return min(map(settled, _partings(prices, left, buckets - 1)), key=_expected)


def fit_predicted(
    counts: Ints, lead_step: int, buckets: int, cost: Cost, again: float, num_patches: int
) -> Ladder:
    """At most `buckets` schedules, full among them, for images of counts (n, R) predicted at `lead_step` (from 0).

    All tokens run the steps before `lead_step`, which are not routed. `again` is what a second run, in full, costs.
    Images are parted by lead into groups of neighbours, at up to MAX_LEADS places; a group's schedule is the best
    of its quantiles in every step, fit against overflow; the greatest leads are left to full. Then each schedule
    descends coordinate by coordinate and the table is set anew, exactly, among all values of lead, while the
    expected cost falls. One more bucket never costs more.
    """
    if not 0 <= again < math.inf:
        raise ConfigError(f"again: got {again}, expected what a second run costs, at least 0")
    images = _gather(counts, num_patches, lead_step, buckets)  # lexicographic, hence in the order of lead
    starts = np.unique(images.counts[:, lead_step], return_index=True)[1]
    bounds = np.append(starts, len(images.counts))[_cuts(len(starts), MAX_LEADS)]
    prices, left, schedules = _quantile_prices(images, bounds, cost, again)

    def settled(groups: list[tuple[int, int]]) -> Ladder:
        ladder = _tabled(images, lead_step, [schedules[a, b] for a, b in groups], cost, again)
        return _while_it_falls(ladder, lambda it: _tuned_predicted(images, lead_step, it, cost, again))

    return min(map(settled, _partings(prices, left, buckets - 1)), key=_expected)


def choose_buckets(fits: Sequence[Ladder], gain: float = GAIN) -> Ladder:
    """Of ladders fitted for 1, 2, 3 … buckets the first after which one more saves less than `gain` of its cost."""
    if not fits:
        raise ConfigError("ladders: got none, expected one for each number of buckets from 1")
    for ladder, more in pairwise(fits):
        saved = ladder.expected - more.expected
        if saved <= 0 or saved < gain * ladder.expected:
            return ladder
    return fits[-1]


# --- images and what is asked of them


@dataclass(frozen=True)
class _Images:
    """Distinct counts (m, R), how often each occurs (m,), and N."""

    counts: Ints
    weights: Ints
    num_patches: int

    @property
    def full(self) -> Schedule:
        return (self.num_patches,) * self.counts.shape[1]

    def take(self, chosen: Any) -> _Images:
        """Some of them, or all in another order."""
        return replace(self, counts=self.counts[chosen], weights=self.weights[chosen])

    def before(self, bounds: NDArray[np.intp]) -> Ints:
        """How many images stand before each position."""
        return np.append(0, self.weights.cumsum())[bounds]


def _gather(counts: Ints, num_patches: int, lead_step: int = 0, buckets: int = 1) -> _Images:
    """Checked, and in lexicographic order. A factor common to all multiplicities changes no mean: it is dropped."""
    counts = np.asarray(counts)
    if counts.ndim != 2 or not counts.size or counts.dtype.kind not in "iu":
        raise ConfigError(
            f"counts: got {counts.dtype} {counts.shape}, expected integers (images, steps), at least 1 of each"
        )
    if buckets < 1:
        raise ConfigError(f"buckets: got {buckets}, expected at least 1, which is full")
    if not 0 <= lead_step < counts.shape[1]:
        raise ConfigError(f"lead_step: got {lead_step}, expected 0 … {counts.shape[1] - 1}")
    counts = counts.astype(np.int64)
    _refuse(counts, (counts < 0) | (counts > num_patches), f"0 … {num_patches} in each step")
    _refuse(counts, np.diff(counts, axis=1) > 0, "no step to run more tokens than the one before")
    unrouted = counts[:, :lead_step] < num_patches
    _refuse(counts, unrouted, f"{num_patches} in each of the {lead_step} steps before the first routed one")
    distinct, weights = np.unique(counts, axis=0, return_counts=True)
    return _Images(distinct, weights // np.gcd.reduce(weights), int(num_patches))


def _refuse(counts: Ints, wrong: NDArray[np.bool_], expected: str) -> None:
    images = np.flatnonzero(wrong.any(axis=1))
    if len(images):
        raise ConfigError(
            f"counts: got {counts[images[0]].tolist()} for image {images[0]}, expected {expected} "
            f"({len(images)} of {len(counts)} images break this)"
        )


def _checked_full(schedules: Sequence[Schedule]) -> int:
    """N, which the last schedule holds in every step."""
    if not schedules or len({len(s) for s in schedules}) != 1 or len(set(schedules[-1])) != 1:
        raise ConfigError(
            f"schedules: got {list(schedules)}, expected equally long ones, the last with all tokens in every step"
        )
    return schedules[-1][0]


def _costs(cost: Cost, schedules: Any) -> Floats:
    """`cost` of schedules (m, R), checked."""
    table = np.asarray(schedules, dtype=np.int64)
    costs = np.asarray(cost(table), dtype=np.float64)
    if costs.shape != table.shape[:1] or not np.isfinite(costs).all():
        raise ConfigError(
            f"cost: got {costs} of shape {costs.shape}, expected a finite number for each of {len(table)} schedules"
        )
    return costs


def _fits_each(counts: Ints, schedules: Sequence[Any]) -> NDArray[np.bool_]:
    """Does each schedule fit each image? (n, B)"""
    return np.stack([(counts <= np.asarray(schedule)).all(axis=1) for schedule in schedules], axis=1)


def _judged(
    images: _Images, schedules: Sequence[Schedule], costs: Floats, chosen: NDArray[np.intp], again: float
) -> Ladder:
    """What the schedules cost when image i goes to schedule chosen[i]."""
    total = int(images.weights.sum())
    served = np.bincount(chosen, images.weights, minlength=len(schedules))
    fits = (images.counts <= np.asarray(schedules)[chosen]).all(axis=1)
    overflow = int(images.weights[~fits].sum())
    expected = math.fsum([*(served * costs), overflow * again]) / total
    shares = tuple((served / total).tolist())
    return Ladder(tuple(map(tuple, schedules)), None, expected, shares, overflow / total)


def _exact(images: _Images, schedules: Sequence[Schedule], cost: Cost) -> Ladder:
    costs = _costs(cost, schedules)
    return _judged(images, schedules, costs, assign(images.counts, schedules, costs), again=0.0)


def _predicted(
    images: _Images,
    lead_step: int,
    schedules: Sequence[Schedule],
    upto: Sequence[int],
    cost: Cost,
    again: float,
) -> Ladder:
    chosen = predict(images.counts[:, lead_step], upto)
    ladder = _judged(images, schedules, _costs(cost, schedules), chosen, again)
    return replace(ladder, upto=tuple(upto))


# --- what both fits share


def _expected(ladder: Ladder) -> float:
    return ladder.expected


def _while_it_falls(ladder: Ladder, improve: Callable[[Ladder], Ladder]) -> Ladder:
    """Improve until the expected cost no longer falls."""
    while (better := improve(ladder)).expected < ladder.expected:
        ladder = better
    return ladder


def _ordered(images: _Images, schedules: Iterable[Ints], cost: Cost) -> list[Schedule]:
    """Each schedule once, cheapest first, then full; one no cheaper than full is of no use."""
    once = sorted({tuple(schedule.tolist()) for schedule in schedules})
    costs = _costs(cost, [*once, images.full])
    ranked = sorted(zip(costs[:-1].tolist(), once, strict=True))
    return [*(schedule for price, schedule in ranked if price < costs[-1]), images.full]


def _without_idle(ladder: Ladder) -> Ladder:
    """Without the buckets that serve nobody; full stays."""
    last = len(ladder.schedules) - 1
    kept = [j for j, share in enumerate(ladder.shares) if share > 0 or j == last]
    return replace(
        ladder,
        schedules=tuple(ladder.schedules[j] for j in kept),
        upto=None if ladder.upto is None else tuple(ladder.upto[j] for j in kept),
        shares=tuple(ladder.shares[j] for j in kept),
    )


def _cuts(positions: int, most: int) -> NDArray[np.intp]:
    """0, every k-th position and the end: the bounds of at most `most` pieces."""
    return np.append(np.arange(0, positions, -(-positions // most)), positions)


def _partings(prices: Floats, left: Floats, groups: int) -> Iterator[list[tuple[int, int]]]:
    """The cheapest way to make 0, 1 … `groups` groups of the first pieces and leave the rest: (a, b) of each group.

    prices (P, P + 1) are of one group of the pieces a … b - 1 (inf where a ≥ b), left (P + 1,) of the pieces from b.
    """
    best = np.full(len(left), np.inf)  # of all groups so far, up to each bound
    best[0] = 0
    came: list[NDArray[np.intp]] = []
    for number in range(min(groups, len(prices)) + 1):
        if number:
            through = best[:-1, None] + prices
            came.append(through.argmin(axis=0))
            best = through.min(axis=0)
        spans, stop = [], int((best + left).argmin())
        for back in reversed(came):
            spans.append((int(back[stop]), stop))
            stop = int(back[stop])
        yield spans[::-1]


def _descended(counts: Ints, schedule: Ints, cost: Cost, bill: Bill) -> Ints:
    """Coordinate descent from `schedule` (R,) to a lower bill for images of counts (m, R).

    For each step in turn every capacity is tried while the others hold, each time shrunk to the envelope of the
    images that fit: those that do not fit anyway hold no other step's capacity up.
    """
    price, falls = np.inf, True
    while falls:
        falls = False
        for step in range(len(schedule)):
            held = counts <= schedule
            held[:, step] = True
            order = np.flatnonzero(held.all(axis=1))
            if not len(order):
                continue
            order = order[np.argsort(counts[order, step], kind="stable")]
            ends = np.flatnonzero(np.diff(counts[order, step], append=-1))  # the last image of each count
            envelopes = np.maximum.accumulate(counts[order])[ends]
            prices = bill(_costs(cost, envelopes), order, ends)
            if prices.min() < price:
                price, schedule, falls = prices.min(), envelopes[prices.argmin()], True
    return schedule


# --- the bucket is chosen exactly


def _envelope_prices(images: _Images, bounds: NDArray[np.intp], cost: Cost) -> tuple[Floats, Floats]:
    """Prices and left of `_partings`, a group's images all in its envelope."""
    before = images.before(bounds)
    pieces = np.maximum.reduceat(images.counts, bounds[:-1], axis=0)
    prices = np.full((len(pieces), len(bounds)), np.inf)
    for a in range(len(pieces)):
        envelopes = np.maximum.accumulate(pieces[a:])
        grew = np.append(True, (np.diff(envelopes, axis=0) > 0).any(axis=1))  # the others cost the same
        costs = _costs(cost, envelopes[grew])[grew.cumsum() - 1]
        prices[a, a + 1 :] = costs * (before[a + 1 :] - before[a])
    return prices, _costs(cost, [images.full])[0] * (before[-1] - before)


def _shrunk(images: _Images, schedules: Sequence[Ints], cost: Cost) -> Ladder:
    """Each image to the cheapest that fits, each schedule to the envelope of its images, full added."""
    ordered = _ordered(images, schedules, cost)
    chosen = assign(images.counts, ordered, _costs(cost, ordered))
    served = [images.counts[chosen == j] for j in range(len(ordered) - 1)]
    envelopes = [counts.max(axis=0) for counts in served if len(counts)]
    return _without_idle(_exact(images, _ordered(images, envelopes, cost), cost))


def _tuned_exact(images: _Images, ladder: Ladder, cost: Cost) -> Ladder:
    """Each schedule but full descends for the images that no cheaper one serves, then shrinks."""
    schedules = [np.asarray(schedule) for schedule in ladder.schedules]
    for j in reversed(range(len(schedules) - 1)):
        costs = _costs(cost, schedules)
        others = np.where(_fits_each(images.counts, schedules), costs, np.inf)
        others[:, j] = np.inf
        otherwise = others.min(axis=1)  # what each image costs without this bucket
        own = otherwise > costs[j]
        bill = _bill_exact(images.weights[own], otherwise[own])
        schedules[j] = _descended(images.counts[own], schedules[j], cost, bill)
    return _shrunk(images, schedules[:-1], cost)


def _bill_exact(weights: Ints, otherwise: Floats) -> Bill:
    """An image costs the schedule if it fits and that is cheaper, else `otherwise` (m,), one of a few prices."""
    classes = [(price, weights * (otherwise == price)) for price in np.unique(otherwise)]

    def bill(costs: Floats, order: NDArray[np.intp], ends: NDArray[np.intp]) -> Floats:
        saved = [np.maximum(price - costs, 0) * own[order].cumsum()[ends] for price, own in classes]
        return (weights * otherwise).sum() - sum(saved, np.zeros(len(costs)))

    return bill


# --- the bucket is predicted


def _quantile_prices(
    images: _Images, bounds: NDArray[np.intp], cost: Cost, again: float
) -> tuple[Floats, Floats, Ints]:
    """Prices and left of `_partings`, a group's images all in the best of its QUANTILES: (P, P + 1, R)."""
    num_steps, values = images.counts.shape[1], np.arange(images.num_patches + 1)
    before, below = images.before(bounds), _weights_upto(images, bounds)
    # (R, m), each an index into a flat table (R, N + 1)
    cells = np.ascontiguousarray((images.counts + np.arange(num_steps) * len(values)).T)
    prices = np.full((len(bounds) - 1, len(bounds)), np.inf)
    schedules = np.zeros((*prices.shape, num_steps), dtype=np.int64)
    for a in range(len(prices)):
        within = below[a + 1 :] - below[a]  # (groups, R, N + 1)
        totals = before[a + 1 :] - before[a]  # (groups,)
        # (groups, Q, R), rising with Q: an image that fits one schedule fits those after it
        tried = np.stack([(within * 1000 < q * totals[:, None, None]).sum(axis=2) for q in QUANTILES], axis=1)
        fitting = np.empty(tried.shape[:2])
        for group, b in enumerate(range(a + 1, len(bounds))):
            part = slice(bounds[a], bounds[b])
            # (R, N + 1): the first schedule whose capacity is not below a count
            first = (values > tried[group, :, :, None]).sum(axis=0, dtype=np.uint8)
            needed = first.ravel()[cells[:, part]].max(axis=0)
            fitting[group] = np.bincount(needed, images.weights[part], minlength=len(QUANTILES)).cumsum()
        costs = _costs(cost, tried.reshape(-1, num_steps)).reshape(fitting.shape)
        priced = totals[:, None] * costs + again * (totals[:, None] - fitting)
        groups, best = np.arange(len(totals)), priced.argmin(axis=1)
        prices[a, a + 1 :], schedules[a, a + 1 :] = priced[groups, best], tried[groups, best]
    return prices, _costs(cost, [images.full])[0] * (before[-1] - before), schedules


def _weights_upto(images: _Images, bounds: NDArray[np.intp]) -> Ints:
    """How many images before each bound ran at most v tokens in each step: (P + 1, R, N + 1)."""
    num_steps, values = images.counts.shape[1], images.num_patches + 1
    piece = np.searchsorted(bounds, np.arange(len(images.counts)), side="right")  # from 1
    cells = (piece[:, None] * num_steps + np.arange(num_steps)) * values + images.counts
    held = np.bincount(
        cells.ravel(), images.weights.repeat(num_steps), minlength=len(bounds) * num_steps * values
    )
    return held.astype(np.int64).reshape(-1, num_steps, values).cumsum(axis=2).cumsum(axis=0)


def _tuned_predicted(images: _Images, lead_step: int, ladder: Ladder, cost: Cost, again: float) -> Ladder:
    """Each schedule but full descends for the images that are predicted to it; then the table is set anew."""
    assert ladder.upto is not None
    chosen = predict(images.counts[:, lead_step], ladder.upto)
    schedules = []
    for j, schedule in enumerate(ladder.schedules[:-1]):
        own = images.take(chosen == j)
        bill = _bill_predicted(own.weights, again)
        schedules.append(_descended(own.counts, np.asarray(schedule), cost, bill))
    return _tabled(images, lead_step, schedules, cost, again)


def _bill_predicted(weights: Ints, again: float) -> Bill:
    """An image costs the schedule, and `again` on top if it does not fit."""
    total = int(weights.sum())

    def bill(costs: Floats, order: NDArray[np.intp], ends: NDArray[np.intp]) -> Floats:
        return total * costs + again * (total - weights[order].cumsum()[ends])

    return bill


def _tabled(images: _Images, lead_step: int, schedules: Iterable[Ints], cost: Cost, again: float) -> Ladder:
    """The best rising table for these schedules and full: exact, among all values of lead that occur."""
    ordered = _ordered(images, schedules, cost)
    leads, starts = np.unique(images.counts[:, lead_step], return_index=True)
    fits, costs = _fits_each(images.counts, ordered), _costs(cost, ordered)
    weights = images.weights[:, None]
    paid = np.add.reduceat(weights * costs + again * (weights * ~fits), starts, axis=0)  # (leads, B)
    best = np.full(len(leads) + 1, np.inf)  # of the buckets so far, up to each lead
    best[0] = 0
    came = []
    for alone in np.vstack([np.zeros(len(ordered)), paid.cumsum(axis=0)]).T:  # one bucket, up to each lead
        before, begin = _running_min(best - alone)
        best = before + alone
        came.append(begin)
    upto, stop = [images.num_patches], int(came[-1][len(leads)])
    for begin in reversed(came[:-1]):
        upto.append(int(leads[stop - 1]) if stop else -1)  # -1: serves nobody
        stop = int(begin[stop])
    return _without_idle(_predicted(images, lead_step, ordered, upto[::-1], cost, again))


def _running_min(values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """The least value so far and where it first stood."""
    least = np.minimum.accumulate(values)
    new = np.append(True, values[1:] < least[:-1])
    return least, np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))
