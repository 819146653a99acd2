"""Ladders of buckets, and what they cost on images: the mean over how many tokens ran each step. No torch.

An image has counts n_1 … n_R, never rising: how many patch tokens ran each step. A schedule fits it when no count
exceeds its capacity. A ladder is a few schedules, cheapest first, the last `full`: all N tokens in every step, which
fits every image. Two dispatch rules:

- exact (token choice): the counts are known before the bucket is chosen; an image goes to the cheapest that fits.
- predicted (expert choice): the bucket follows from one of the counts, `lead`, by a table of upper bounds; an image
  that does not fit has overflowed and is run again in `full`.

Images are gathered into distinct counts with multiplicities before anything else, so their order changes nothing.
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

GAIN = 0.02  # of the expected cost: what one more graph on the device must save

Schedule = tuple[int, ...]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
# schedules (m, R) -> what one image costs in each, float64 (m,): MACs or ms, never falling as a capacity rises
Cost = Callable[[Ints], Floats]


@dataclass(frozen=True)
class Ladder:
    """Schedules, cheapest first and the last full, and what they cost on the images they were evaluated on."""

    schedules: tuple[Schedule, ...]
    upto: tuple[int, ...] | None  # predicted: the greatest lead each bucket serves, rising, the last N
    expected: float  # mean cost of an image, second runs included
    shares: tuple[float, ...]  # part of the images each bucket is chosen for
    overflow: float  # part of the images run again in full; 0 for exact


@dataclass(frozen=True)
class Images:
    """Distinct counts (m, R), how often each occurs (m,), and N."""

    counts: Ints
    weights: Ints
    num_patches: int

    @property
    def full(self) -> Schedule:
        return (self.num_patches,) * int(self.counts.shape[1])

    def take(self, chosen: Any) -> Images:
        """Some of them, or all in another order."""
        return replace(self, counts=self.counts[chosen], weights=self.weights[chosen])

    def before(self, bounds: NDArray[np.intp]) -> Ints:
        """How many images stand before each position."""
        return np.append(0, self.weights.cumsum())[bounds]


def assign(counts: Ints, schedules: Sequence[Schedule], costs: Floats) -> NDArray[np.intp]:
    """The cheapest schedule that fits each image: counts (n, R), costs (B,) to indices (n,); the first of equals.

    ConfigError when an image fits none.
    """
    fits = fits_each(counts, schedules)
    if not fits.any(axis=1).all():
        raise ConfigError(
            f"schedules: got {list(schedules)}, expected that one fits each image; let the last be full"
        )
    cheapest: NDArray[np.intp] = np.where(fits, costs, np.inf).argmin(axis=1)
    return cheapest


def predict(lead: Ints, upto: Sequence[int]) -> NDArray[np.intp]:
    """The bucket that each image's `lead` (n,) calls for: the first whose upper bound it does not exceed."""
    chosen: NDArray[np.intp] = np.searchsorted(np.asarray(upto), lead, side="left")
    return chosen


def evaluate_exact(counts: Ints, schedules: Sequence[Schedule], cost: Cost) -> Ladder:
    """`schedules` (the last full) evaluated on images of counts (n, R) when the bucket is chosen exactly."""
    return price_exact(gather(counts, _checked_full(schedules)), schedules, cost)


def evaluate_predicted(
    counts: Ints, lead_step: int, schedules: Sequence[Schedule], upto: Sequence[int], cost: Cost, again: float
) -> Ladder:
    """`schedules` (the last full) and the table `upto` evaluated on images of counts (n, R).

    The bucket follows from the count at `lead_step` (from 0); an image that does not fit costs `again` on top.
    """
    num_patches = _checked_full(schedules)
    if len(upto) != len(schedules) or list(upto) != sorted(upto) or upto[-1] != num_patches:
        raise ConfigError(
            f"upto: got {list(upto)}, expected {len(schedules)} rising bounds, the last {num_patches}"
        )
    return price_predicted(gather(counts, num_patches, lead_step), lead_step, schedules, upto, cost, again)


def choose_buckets(fits: Sequence[Ladder], gain: float = GAIN) -> Ladder:
    """Of ladders fitted for 1, 2, 3 … buckets the first after which one more saves less than `gain` of its cost."""
    if not fits:
        raise ConfigError("ladders: got none, expected one for each number of buckets from 1")
    for ladder, more in pairwise(fits):
        saved = ladder.expected - more.expected
        if saved <= 0 or saved < gain * ladder.expected:
            return ladder
    return fits[-1]


def gather(counts: Ints, num_patches: int, lead_step: int = 0, buckets: int = 1) -> Images:
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
    return Images(distinct, weights // np.gcd.reduce(weights), int(num_patches))


def costs_of(cost: Cost, schedules: Any) -> Floats:
    """`cost` of schedules (m, R), checked."""
    table = np.asarray(schedules, dtype=np.int64)
    costs = np.asarray(cost(table), dtype=np.float64)
    if costs.shape != table.shape[:1] or not np.isfinite(costs).all():
        raise ConfigError(
            f"cost: got {costs} of shape {costs.shape}, expected a finite number for each of {len(table)} schedules"
        )
    return costs


def fits_each(counts: Ints, schedules: Sequence[Any]) -> NDArray[np.bool_]:
    """Does each schedule fit each image? (n, B)"""
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
    """What the schedules cost when image i goes to schedule chosen[i]."""
    total = int(images.weights.sum())
    served = np.bincount(chosen, images.weights, minlength=len(schedules))
    fits = (images.counts <= np.asarray(schedules)[chosen]).all(axis=1)
    overflow = int(images.weights[~fits].sum())
    expected = math.fsum([*(served * costs), overflow * again]) / total
    shares = tuple((served / total).tolist())
    return Ladder(tuple(map(tuple, schedules)), None, expected, shares, overflow / total)


def _checked_full(schedules: Sequence[Schedule]) -> int:
    """N, which the last schedule holds in every step."""
    if not schedules or len({len(s) for s in schedules}) != 1 or len(set(schedules[-1])) != 1:
        raise ConfigError(
            f"schedules: got {list(schedules)}, expected equally long ones, the last with all tokens in every step"
        )
    return schedules[-1][0]


def _refuse(counts: Ints, wrong: NDArray[np.bool_], expected: str) -> None:
    images = np.flatnonzero(wrong.any(axis=1))
    if len(images):
        raise ConfigError(
            f"counts: got {counts[images[0]].tolist()} for image {images[0]}, expected {expected} "
            f"({len(images)} of {len(counts)} images break this)"
        )
