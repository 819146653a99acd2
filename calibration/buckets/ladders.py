"""Ladders of buckets, and their expected cost on images. No torch.

The counts n_1 … n_R of an image are the numbers of patch tokens that run each step; they never increase. A schedule
fits an image if no count exceeds its capacity. A ladder is a list of schedules, cheapest first. The last is `full`,
all N tokens in every step, which fits every image. There are two dispatch rules:

- exact (token choice): the counts are known before the bucket is chosen; an image runs in the cheapest that fits.
- predicted (expert choice): a table of upper bounds maps one of the counts, `lead`, to a bucket; an image that does
  not fit its bucket overflows and is run again in `full`.

Images are first reduced to distinct counts with multiplicities, so their order has no effect.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import ConfigError

GAIN = 0.02  # fraction of the expected cost that an additional bucket must save

Schedule = tuple[int, ...]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# schedules (m, R) -> cost of one image in each, float64 (m,), in MACs or ms; never decreases with a capacity
Cost = Callable[[Ints], Floats]


@dataclass(frozen=True)
class Ladder:
    """Schedules, cheapest first and the last full, and their cost on the images they were evaluated on."""

    schedules: tuple[Schedule, ...]
    upto: tuple[int, ...] | None  # predicted: largest lead of each bucket, ascending, the last is N
    expected: float  # mean cost per image, including second runs
    shares: tuple[float, ...]  # fraction of images that each bucket is chosen for
    overflow: float  # fraction of images that are run again in full; 0 for exact


@dataclass(frozen=True)
class Images:
    """Distinct counts (m, R), their multiplicities (m,), and N."""

    counts: Ints
    weights: Ints
    num_patches: int

    @property
    def full(self) -> Schedule:
        return (self.num_patches,) * int(self.counts.shape[1])

    def take(self, chosen: Any) -> Images:
        """Select or reorder counts."""
        return replace(self, counts=self.counts[chosen], weights=self.weights[chosen])

    def before(self, bounds: NDArray[np.intp]) -> Ints:
        """Return the number of images before each position."""
        return np.append(0, self.weights.cumsum())[bounds]


def assign(counts: Ints, schedules: Sequence[Schedule], costs: Floats) -> NDArray[np.intp]:
    """Return the index (n,) of the cheapest schedule that fits each image, from counts (n, R) and costs (B,).

    On a tie it is the first. Raises ConfigError if an image fits no schedule.
    """
    fits = fits_each(counts, schedules)
    if not fits.any(axis=1).all():
        raise ConfigError(
            f"schedules: got {list(schedules)}, expected one that fits each image; make the last one full"
        )
    cheapest: NDArray[np.intp] = np.where(fits, costs, np.inf).argmin(axis=1)
    return cheapest


def predict(lead: Ints, upto: Sequence[int]) -> NDArray[np.intp]:
    """Return the predicted bucket of each image: the first whose upper bound is at least `lead` (n,)."""
    chosen: NDArray[np.intp] = np.searchsorted(np.asarray(upto), lead, side="left")
    return chosen


def evaluate_exact(counts: Ints, schedules: Sequence[Schedule], cost: Cost) -> Ladder:
    """Evaluate schedules (the last is full) on images of counts (n, R) whose bucket is chosen exactly."""
    return price_exact(gather(counts, _checked_full(schedules)), schedules, cost)


def evaluate_predicted(
    counts: Ints, lead_step: int, schedules: Sequence[Schedule], upto: Sequence[int], cost: Cost, again: float
) -> Ladder:
    """Evaluate schedules (the last is full) and the table `upto` on images of counts (n, R).

    The count at `lead_step` (from 0) determines the bucket; an image that does not fit costs `again` in addition.
    """
    num_patches = _checked_full(schedules)
    if len(upto) != len(schedules) or list(upto) != sorted(upto) or upto[-1] != num_patches:
        raise ConfigError(
            f"upto: got {list(upto)}, expected {len(schedules)} ascending bounds, the last {num_patches}"
        )
    return price_predicted(gather(counts, num_patches, lead_step), lead_step, schedules, upto, cost, again)


def choose_buckets(fits: Sequence[Ladder], gain: float = GAIN) -> Ladder:
    """Return the first ladder for 1, 2, 3 … buckets after which another bucket saves less than `gain` of its cost."""
    if not fits:
        raise ConfigError("ladders: got none, expected one for each number of buckets from 1")
    for ladder, more in pairwise(fits):
        saved = ladder.expected - more.expected
        if saved <= 0 or saved < gain * ladder.expected:
            return ladder
    return fits[-1]


def gather(counts: Ints, num_patches: int, lead_step: int = 0, buckets: int = 1) -> Images:
    """Check counts and reduce them to distinct ones, in lexicographic order.

    A common factor of all multiplicities is removed, which does not change means.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or not counts.size or counts.dtype.kind not in "iu":
        raise ConfigError(
            f"counts: got {counts.dtype} {counts.shape}, expected integers (images, steps), at least 1 of each"
        )
    if buckets < 1:
        raise ConfigError(f"buckets: got {buckets}, expected at least 1 (full)")
    if not 0 <= lead_step < counts.shape[1]:
        raise ConfigError(f"lead_step: got {lead_step}, expected 0 … {counts.shape[1] - 1}")
    counts = counts.astype(np.int64)
    _refuse(counts, (counts < 0) | (counts > num_patches), f"0 … {num_patches} in each step")
    _refuse(counts, np.diff(counts, axis=1) > 0, "no step to run more tokens than the one before")
    unrouted = counts[:, :lead_step] < num_patches
    _refuse(counts, unrouted, f"{num_patches} in each of the {lead_step} steps before the first routed one")
    distinct, weights = np.unique(counts, axis=0, return_counts=True)
    return Images(distinct, weights // np.gcd.reduce(weights), int(num_patches))


def costs_of(cost: Cost, schedules: Any) -> Floats:
    """Return the costs of schedules (m, R); ConfigError if they are not finite numbers."""
    table = np.asarray(schedules, dtype=np.int64)
    costs = np.asarray(cost(table), dtype=np.float64)
    if costs.shape != table.shape[:1] or not np.isfinite(costs).all():
        raise ConfigError(
            f"cost: got {costs} of shape {costs.shape}, expected a finite number for each of {len(table)} schedules"
        )
    return costs


def fits_each(counts: Ints, schedules: Sequence[Any]) -> NDArray[np.bool_]:
    """Return whether each schedule fits each image, (n, B)."""
    return np.stack([(counts <= np.asarray(schedule)).all(axis=1) for schedule in schedules], axis=1)


def price_exact(images: Images, schedules: Sequence[Schedule], cost: Cost) -> Ladder:
    costs = costs_of(cost, schedules)
    return _priced(images, schedules, costs, assign(images.counts, schedules, costs), again=0.0)


def price_predicted(
    images: Images,
    lead_step: int,
    schedules: Sequence[Schedule],
    upto: Sequence[int],
    cost: Cost,
    again: float,
) -> Ladder:
    chosen = predict(images.counts[:, lead_step], upto)
    ladder = _priced(images, schedules, costs_of(cost, schedules), chosen, again)
    return replace(ladder, upto=tuple(upto))


def _priced(
    images: Images, schedules: Sequence[Schedule], costs: Floats, chosen: NDArray[np.intp], again: float
) -> Ladder:
    """Return the ladder if image i runs in schedule chosen[i]."""
    total = int(images.weights.sum())
    served = np.bincount(chosen, images.weights, minlength=len(schedules))
    fits = (images.counts <= np.asarray(schedules)[chosen]).all(axis=1)
    overflow = int(images.weights[~fits].sum())
    expected = math.fsum([*(served * costs), overflow * again]) / total
    shares = tuple((served / total).tolist())
    return Ladder(tuple(map(tuple, schedules)), None, expected, shares, overflow / total)


def _checked_full(schedules: Sequence[Schedule]) -> int:
    """Return N, the capacity of the last schedule at every step."""
    if not schedules or len({len(s) for s in schedules}) != 1 or len(set(schedules[-1])) != 1:
        raise ConfigError(
            f"schedules: got {list(schedules)}, expected equal lengths and all tokens at every step of the last one"
        )
    return schedules[-1][0]


def _refuse(counts: Ints, wrong: NDArray[np.bool_], expected: str) -> None:
    images = np.flatnonzero(wrong.any(axis=1))
    if len(images):
        raise ConfigError(
            f"counts: got {counts[images[0]].tolist()} for image {images[0]}, expected {expected} "
            f"({len(images)} of {len(counts)} images are wrong)"
        )
