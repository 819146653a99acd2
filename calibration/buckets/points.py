"""The points of a calibration: ways to route a checkpoint, each with its cost and accuracy. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
from morvit_deploy.calibration.routing.sequence import OWN, routed, scaled
from morvit_deploy.calibration.routing.statistics import Statistics, Thresholds
from morvit_deploy.model.config import Config

MAX_BUCKETS = 6  # tried if the number of buckets is not given


@dataclass(frozen=True)
class Point:
    """One way to route: expected cost per image, and accuracy on the calibration images."""

    kind: str  # "topk", "threshold" or "depth": the mode of a plan
    scale: float | None  # relative to the checkpoint's capacities
    expected: float  # in MACs or ms
    expected_macs: float
    agreement: float  # top-1 agreement with the trained model
    top1: float | None  # None unless every image has a label
    preferred: bool = False  # the default of its kind without a budget
    unpadded: float | None = None  # expected cost without padding, a lower bound for any ladder
    overflow: float = 0.0
    thresholds: Thresholds | None = None
    ladder: Ladder | None = None

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
    points = [_topk_point(config, last, i, costs) for i in range(len(last.run.scales))]
    if last.run.mode == "threshold":
        for i, own in enumerate(thresholds):
            points.append(_threshold_point(config, last, i, own, costs, buckets))
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
    )


def _threshold_point(
    config: Config, last: Statistics, i: int, thresholds: Thresholds, costs: Costs, buckets: int | None
) -> Point:
    assert last.counts is not None
    steps, everyone = routed(config), config.num_patches
    counts = _held(last.counts[:, i, list(steps)])

    def cost_by(costs: Costs) -> tuple[Cost, float]:
        """Return the cost function of schedules of the routed steps, and the cost of a second run in full."""

        def cost(schedules: NDArray[np.int64]) -> NDArray[np.float64]:
            return costs.of(expand(schedules, steps, config.num_steps, everyone), thresholds)

        return cost, float(cost(np.full((1, len(steps)), everyone))[0]) - costs.stem(steps[0])

    cost, again = cost_by(costs)
    ladder = _fitted(lambda number: fit_predicted(counts, 0, number, cost, again, everyone), buckets)
    assert ladder.upto is not None
    macs = evaluate_predicted(counts, 0, ladder.schedules, ladder.upto, *cost_by(MacCost(config)))
    return Point(
        "threshold",
        last.run.scales[i],
        expected=ladder.expected,
        expected_macs=macs.expected,
        agreement=last.agreement("threshold", i),
        top1=last.top1("threshold", i),
        preferred=last.run.scales[i] == OWN,
        unpadded=float(cost(counts).mean()),
        overflow=ladder.overflow,
        thresholds=thresholds,
        ladder=ladder,
    )


def _held(counts: NDArray[Any]) -> NDArray[np.int64]:
    """Return the capacities that counts (images, steps) require: a graph holds at least one patch token."""
    return np.maximum(counts.astype(np.int64), 1)


def _depth_points(config: Config, last: Statistics, costs: Costs, buckets: int | None) -> list[Point]:
    """Return a point for each number of buckets; the logits are the same, and only the cost differs."""
    assert last.counts is not None
    counts = _held(last.counts[:, 0])
    fits = _fits(
        lambda number: fit_exact(counts, number, costs.of, config.num_patches), buckets or MAX_BUCKETS
    )
    preferred = fits[-1] if buckets else choose_buckets(fits)
    return [
        Point(
            "depth",
            None,
            expected=ladder.expected,
            expected_macs=evaluate_exact(counts, ladder.schedules, MacCost(config).of).expected,
            agreement=last.agreement("depth"),
            top1=last.top1("depth"),
            preferred=ladder == preferred,
            unpadded=float(costs.of(counts).mean()),
            ladder=ladder,
        )
        for ladder in dict.fromkeys(fits)  # another bucket may not help
    ]


def _fitted(fit: Callable[[int], Ladder], buckets: int | None) -> Ladder:
    """Fit at most `buckets`, or as many as reduce the cost noticeably."""
    return fit(buckets) if buckets else choose_buckets(_fits(fit, MAX_BUCKETS))


def _fits(fit: Callable[[int], Ladder], most: int) -> list[Ladder]:
    """Fit 1, 2, … `most` buckets."""
    return [fit(number) for number in range(1, most + 1)]
