"""The points of a calibration: ways to route a checkpoint, each with its cost and accuracy. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.adaptivity.spread import Spread, spread_of
from morvit_deploy.calibration.buckets.costs import Costs, MacCost, expand
from morvit_deploy.calibration.buckets.exact import fit_exact
from morvit_deploy.calibration.buckets.ladders import (
    Cost,
    Ladder,
    choose_buckets,
    evaluate_exact,
    evaluate_predicted,
)
from morvit_deploy.calibration.buckets.predicted import fit_predicted
from morvit_deploy.calibration.routing.sequence import OWN, is_fitted, routed, scaled
from morvit_deploy.calibration.routing.statistics import Statistics, Thresholds
from morvit_deploy.model.config import Config

MAX_BUCKETS = 6  # tried if the number of buckets is not given


@dataclass(frozen=True)
class Point:
    """One way to route: expected cost per image, and accuracy on the calibration images."""

    kind: str  # "topk", "threshold" or "depth": the mode of a plan
    scale: float | None  # relative to the checkpoint's capacities; None: the routing is the checkpoint's own
    expected: float  # in MACs or ms
    expected_macs: float
    agreement: float  # top-1 agreement with the trained model
    top1: float | None  # None unless every image has a label
    preferred: bool = False  # the default of its kind without a budget
    unpadded: float | None = None  # expected cost without padding, a lower bound for any ladder
    overflow: float = 0.0
    thresholds: Thresholds | None = None
    ladder: Ladder | None = None
    replaces_thresholds: bool = False  # top-k in place of the thresholds that the checkpoint owns
    spread: Spread | None = None  # of token counts between images; None if all images have the same

    @property
    def is_fitted(self) -> bool:
        """Whether it is a ladder for the trained routing: such points differ only in cost and number of buckets."""
        return self.scale is None

    @property
    def accuracy(self) -> float:
        """Top-1 if every image has a label, otherwise agreement with the trained model."""
        return self.agreement if self.top1 is None else self.top1

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the Pareto file."""
        return asdict(self)


def points_of(
    config: Config, last: Statistics, thresholds: Sequence[Thresholds], costs: Costs, buckets: int | None
) -> list[Point]:
    """Return all points, from the statistics of the last round and the thresholds of each scale.

    `buckets` is the number of buckets of a ladder; None: as many as reduce the cost noticeably.
    """
    if last.run.mode == "depth":
        return _depth_points(config, last, costs, buckets)
    if is_fitted(config, last.run.mode):
        return _own_threshold_points(_Counted(config, last, 0, thresholds[0], costs), buckets)
    points = [_topk_point(config, last, i, costs) for i in range(len(last.run.scales))]
    if last.run.mode == "threshold":
        for i, own in enumerate(thresholds):
            counted = _Counted(config, last, i, own, costs)
            scale = last.run.scales[i]
            points.append(counted.point(_fitted(counted.fit, buckets), scale, preferred=scale == OWN))
    return points


def _topk_point(config: Config, last: Statistics, i: int, costs: Costs) -> Point:
    scale = last.run.scales[i]
    schedule = np.array([scaled(config, scale)])
    return Point(
        "topk",
        scale,
        expected=float(costs.of(schedule)[0]),
        expected_macs=float(MacCost(config).of(schedule)[0]),
        agreement=last.agreement("topk", i),
        top1=last.top1("topk", i),
        preferred=scale == OWN,
        replaces_thresholds=config.thresholds is not None,
    )


class _Counted:
    """The token counts of one scale's thresholds, and the ladders fitted to them."""

    def __init__(
        self, config: Config, last: Statistics, i: int, thresholds: Thresholds, costs: Costs
    ) -> None:
        assert last.counts is not None
        self.config, self.last, self.i, self.thresholds = config, last, i, thresholds
        self.steps = routed(config)
        self.counts = _held(last.counts[:, i, list(self.steps)])
        self.cost, self.again = self._priced(costs)

    def fit(self, buckets: int) -> Ladder:
        """Return the ladder of at most `buckets`."""
        return fit_predicted(self.counts, 0, buckets, self.cost, self.again, self.config.num_patches)

    def point(self, ladder: Ladder, scale: float | None, *, preferred: bool) -> Point:
        """Return the point of a ladder."""
        assert ladder.upto is not None
        of_macs, spread = self._priced(MacCost(self.config)), spread_of(self.counts, self.cost)
        return Point(
            "threshold",
            scale,
            expected=ladder.expected,
            expected_macs=evaluate_predicted(
                self.counts, 0, ladder.schedules, ladder.upto, *of_macs
            ).expected,
            agreement=self.last.agreement("threshold", self.i),
            top1=self.last.top1("threshold", self.i),
            preferred=preferred,
            unpadded=spread.each,
            overflow=ladder.overflow,
            thresholds=self.thresholds,
            ladder=ladder,
            spread=spread,
        )

    def _priced(self, costs: Costs) -> tuple[Cost, float]:
        """Return the cost function of schedules of the routed steps, and the cost of a second run in full."""
        steps, everyone = self.steps, self.config.num_patches

        def cost(schedules: NDArray[np.int64]) -> NDArray[np.float64]:
            return costs.of(expand(schedules, steps, self.config.num_steps, everyone), self.thresholds)

        return cost, float(cost(np.full((1, len(steps)), everyone))[0]) - costs.stem(steps[0])


def _own_threshold_points(counted: _Counted, buckets: int | None) -> list[Point]:
    """Return a point for each number of buckets; the logits are the same, and only the cost differs."""
    fits, preferred = _tried(counted.fit, buckets)
    return [counted.point(ladder, None, preferred=ladder == preferred) for ladder in fits]


def _held(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Return the capacities that counts (images, steps) require: a graph holds at least one patch token."""
    return np.maximum(counts.astype(np.int64), 1)


def _depth_points(config: Config, last: Statistics, costs: Costs, buckets: int | None) -> list[Point]:
    """Return a point for each number of buckets; the logits are the same, and only the cost differs."""
    assert last.counts is not None
    counts = _held(last.counts[:, 0])
    fits, preferred = _tried(lambda number: fit_exact(counts, number, costs.of, config.num_patches), buckets)
    spread = spread_of(counts, costs.of)
    return [
        Point(
            "depth",
            None,
            expected=ladder.expected,
            expected_macs=evaluate_exact(counts, ladder.schedules, MacCost(config).of).expected,
            agreement=last.agreement("depth"),
            top1=last.top1("depth"),
            preferred=ladder == preferred,
            unpadded=spread.each,
            ladder=ladder,
            spread=spread,
        )
        for ladder in fits
    ]


def _tried(fit: Callable[[int], Ladder], buckets: int | None) -> tuple[list[Ladder], Ladder]:
    """Return the ladders of 1, 2, … buckets, and the preferred one of them."""
    fits = _fits(fit, buckets or MAX_BUCKETS)
    preferred = fits[-1] if buckets else choose_buckets(fits)
    return [*dict.fromkeys(fits)], preferred  # another bucket may not help


def _fitted(fit: Callable[[int], Ladder], buckets: int | None) -> Ladder:
    """Fit at most `buckets`, or as many as reduce the cost noticeably."""
    return fit(buckets) if buckets else choose_buckets(_fits(fit, MAX_BUCKETS))


def _fits(fit: Callable[[int], Ladder], most: int) -> list[Ladder]:
    """Fit 1, 2, … `most` buckets."""
    return [fit(number) for number in range(1, most + 1)]
