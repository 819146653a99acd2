"""The search that both fits share: optimal partitions into neighbours, and coordinate descent. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.buckets.ladders import Cost, Floats, Images, Ints, Ladder, Schedule, costs_of

# (costs (k,) of growing schedules, images in the order in which they begin to fit, position (k,) of the last image
# that fits each schedule) -> total cost of all images with each schedule (k,)
Bill = Callable[[Floats, NDArray[np.intp], NDArray[np.intp]], Floats]


def while_it_falls(ladder: Ladder, improve: Callable[[Ladder], Ladder]) -> Ladder:
    """Improve a ladder until its expected cost no longer decreases."""
    while (better := improve(ladder)).expected < ladder.expected:
        ladder = better
    return ladder


def in_order(images: Images, schedules: Iterable[Ints], cost: Cost) -> list[Schedule]:
    """Return distinct schedules, cheapest first, without those that are not cheaper than full, then full."""
    once = sorted({tuple(schedule.tolist()) for schedule in schedules})
    costs = costs_of(cost, [*once, images.full])
    ranked = sorted(zip(costs[:-1].tolist(), once, strict=True))
    return [*(schedule for price, schedule in ranked if price < costs[-1]), images.full]


def without_idle(ladder: Ladder) -> Ladder:
    """Remove the buckets without images, except full."""
    last = len(ladder.schedules) - 1
    kept = [j for j, share in enumerate(ladder.shares) if share > 0 or j == last]
    return replace(
        ladder,
        schedules=tuple(ladder.schedules[j] for j in kept),
        upto=None if ladder.upto is None else tuple(ladder.upto[j] for j in kept),
        shares=tuple(ladder.shares[j] for j in kept),
    )


def cuts(positions: int, most: int) -> NDArray[np.intp]:
    """Return the bounds of at most `most` pieces of equal length: 0, every k-th position, and the end."""
    return np.append(np.arange(0, positions, -(-positions // most)), positions)


def partings(prices: Floats, left: Floats, groups: int) -> Iterator[list[tuple[int, int]]]:
    """Yield the cheapest partition of leading pieces into 0, 1 … `groups` groups, as (a, b) of each group.

    prices (P, P + 1) are the costs of groups of pieces a … b - 1 (inf for a ≥ b), left (P + 1,) of the pieces from b.
    """
    best = np.full(len(left), np.inf)  # cost with the groups so far, up to each bound
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


def descended(counts: Ints, schedule: Ints, cost: Cost, bill: Bill) -> Ints:
    """Reduce the bill of images of counts (m, R) by coordinate descent from `schedule` (R,).

    Each step in turn tries every capacity while the others are fixed, and shrinks the schedule to the envelope of the
    images that fit.
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
            prices = bill(costs_of(cost, envelopes), order, ends)
            if prices.min() < price:
                price, schedule, falls = prices.min(), envelopes[prices.argmin()], True
    return schedule
