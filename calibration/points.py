"""The ways of routing that one checkpoint can be deployed with, and what each costs and is worth. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.costs import MacCost, MeasuredCost, Thresholds, expand
from morvit_deploy.calibration.fitting import (
    GAIN,
    Ladder,
    choose_buckets,
    evaluate_exact,
    evaluate_predicted,
    fit_exact,
    fit_predicted,
)
from morvit_deploy.calibration.gathering import NO_LABEL
from morvit_deploy.calibration.sequence import OWN, routed, scaled
from morvit_deploy.calibration.statistics import Statistics
from morvit_deploy.config import Config
from morvit_deploy.errors import PlanError

MAX_BUCKETS = 6  # tried when the number is not given
Costs = MacCost | MeasuredCost


@dataclass(frozen=True)
class Point:
    """One way to deploy: expected cost of an image, and its worth on the calibration images."""

    kind: str  # "topk", "threshold", "depth" or "dense"
    scale: float | None  # of the checkpoint's capacities
    expected: float  # MACs or ms
    expected_macs: float
    agreement: float | None  # top-1, with the model as it was trained
    top1: float | None  # where the images have labels
    overflow: float = 0.0
    thresholds: Thresholds | None = None
    ladder: Ladder | None = None

    @property
    def worth(self) -> float:
        """What to choose by: top-1 where there are labels, otherwise agreement with the trained model."""
        return self.top1 if self.top1 is not None else self.agreement or 0.0

    def as_dict(self) -> dict[str, Any]:
        """For the Pareto file."""
        return asdict(self) | {"ladder": None if self.ladder is None else asdict(self.ladder)}


def points_of(
    config: Config,
    last: Statistics,
    thresholds: list[Thresholds],
    costs: Costs,
    buckets: int | None,
) -> list[Point]:
    """Every point of a calibration, from the records of its last round and the thresholds of each scale."""
    records = last.records
    if config.routing != "expert_choice":
        return [_depth_point(config, records, costs, buckets)]
    points = [_topk_point(config, scale, records, i, costs) for i, scale in enumerate(last.run.scales)]
    if last.run.mode == "threshold":
        points += [
            _threshold_point(config, scale, thresholds[i], records, i, costs, buckets)
            for i, scale in enumerate(last.run.scales)
        ]
    return points


def choose(points: list[Point], kind: str, budget: float | None, budget_macs: float | None) -> Point:
    """The point of `kind` at the checkpoint's own scale; with a budget the worthiest within it, or the cheaper.

    PlanError names the nearest when none is within the budget.
    """
    own = [point for point in points if point.kind == kind]
    if budget is None and budget_macs is None:
        return next(point for point in own if point.scale in (OWN, None))
    price = (lambda p: p.expected_macs) if budget_macs is not None else (lambda p: p.expected)
    limit = budget_macs if budget_macs is not None else budget
    assert limit is not None
    within = [point for point in own if price(point) <= limit]
    if not within:
        nearest = min(own, key=price)
        unit = "MACs" if budget_macs is not None else "ms"
        raise PlanError(
            f"no {kind} plan costs {limit:g} {unit} or less; the nearest is the checkpoint's schedule scaled by "
            f"{nearest.scale}, which costs {price(nearest):.4g} {unit}"
        )
    return max(within, key=lambda point: (point.worth, -price(point)))


def _topk_point(config: Config, scale: float, records: dict[str, NDArray], i: int, costs: Costs) -> Point:
    capacity = scaled(config, scale)
    schedule = np.array([capacity])
    macs = MacCost(config).of(schedule)[0]
    return Point(
        "topk",
        scale,
        expected=float(costs.of(schedule)[0]),
        expected_macs=float(macs),
        **_worth(records, records["topk"][:, i]),
    )


def _threshold_point(
    config: Config,
    scale: float,
    thresholds: Thresholds,
    records: dict[str, NDArray],
    i: int,
    costs: Costs,
    buckets: int | None,
) -> Point:
    steps, everyone = routed(config), config.num_patches
    if not steps:
        raise PlanError("the checkpoint's schedule lets no token leave, so there is no threshold to find")
    counts = records["counts"][:, i][:, list(steps)].astype(np.int64)

    def cost(schedules: NDArray[np.int64], costs: Costs = costs) -> NDArray[np.float64]:
        return costs.of(expand(schedules, steps, config.num_steps, everyone), thresholds)

    full = np.full((1, len(steps)), everyone)
    again = float(cost(full)[0]) - costs.stem(steps[0])
    fits = [
        fit_predicted(counts, 0, number, cost, again, everyone)
        for number in ([buckets] if buckets else range(1, MAX_BUCKETS + 1))
    ]
    ladder = fits[0] if buckets else choose_buckets(fits, GAIN)
    expected_macs = _expected_macs(config, counts, ladder, lambda s: cost(s, MacCost(config)), steps[0])
    return Point(
        "threshold",
        scale,
        expected=ladder.expected,
        expected_macs=expected_macs,
        overflow=ladder.overflow,
        thresholds=thresholds,
        ladder=ladder,
        **_worth(records, records["planned"][:, i]),
    )


def _expected_macs(config: Config, counts: NDArray, ladder: Ladder, cost: Any, lead: int) -> float:
    """The ladder's mean MACs on the images it was fitted to, second runs included."""
    full = np.full((1, counts.shape[1]), config.num_patches)
    again = float(cost(full)[0]) - MacCost(config).stem(lead)
    assert ladder.upto is not None
    return evaluate_predicted(counts, 0, ladder.schedules, ladder.upto, cost, again).expected


def _depth_point(config: Config, records: dict[str, NDArray], costs: Costs, buckets: int | None) -> Point:
    counts = records["counts"][:, 0].astype(np.int64)
    fits = [
        fit_exact(counts, number, costs.of, config.num_patches)
        for number in ([buckets] if buckets else range(1, MAX_BUCKETS + 1))
    ]
    ladder = fits[0] if buckets else choose_buckets(fits, GAIN)
    macs = evaluate_exact(counts, ladder.schedules, MacCost(config).of).expected
    return Point(
        "depth",
        None,
        expected=ladder.expected,
        expected_macs=macs,
        ladder=ladder,
        **_worth(records, records["trained"]),
    )


def _worth(records: dict[str, NDArray], predictions: NDArray) -> dict[str, float | None]:
    return {
        "agreement": float((predictions == records["trained"]).mean()),
        "top1": top1(records, predictions),
    }


def top1(records: dict[str, NDArray], predictions: NDArray) -> float | None:
    """Share of right answers; None unless every image has a label."""
    labels = records["label"]
    return None if (labels == NO_LABEL).any() else float((predictions == labels).mean())
