"""Which tokens of a budget merge at which layer: families of schedules, then moves between neighboring layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from typing import Protocol

from morvit_deploy.calibration.merging.points import MergePoint, merged_macs, within
from morvit_deploy.model.config import Config
from morvit_deploy.model.merges.schedules import (
    MergeSchedule,
    decreasing,
    earliest,
    even,
    most_merges,
)

FAMILIES: dict[str, Callable[[Config], tuple[float, ...]]] = {
    "even": even,
    "decreasing": decreasing,
    "earliest": earliest,  # which also meets budgets that the others do not
}
SEARCHED = "searched"
TRIES = 40  # schedules that the search runs
SHARES = (0.9, 0.8, 0.7, 0.6, 0.5)  # of the unmerged ViT's MACs, for the curve


class Measures(Protocol):
    """What runs a schedule on images."""

    def measure(self, kind: str, schedule: MergeSchedule) -> MergePoint: ...


def better(point: MergePoint, other: MergePoint) -> bool:
    """Whether a point changes the results less: by divergence, which tells apart what agree in their decisions."""
    return point.divergence < other.divergence


def best_of(points: list[MergePoint]) -> MergePoint:
    """Return the point that changes the results least."""
    return min(points, key=lambda point: (point.divergence, point.macs))


def families(config: Config, budgets: Mapping[str, float], measures: Measures) -> list[MergePoint]:
    """Measure each family of schedules within its budget of MACs, with and without proportional attention."""
    found = [
        (kind, within(config, FAMILIES[kind](config), budget, proportional=proportional))
        for (kind, budget), proportional in product(budgets.items(), (False, True))
    ]
    return [measures.measure(kind, schedule) for kind, schedule in found if schedule is not None]


def curve(config: Config, like: MergePoint, unmerged: int, measures: Measures) -> Iterator[MergePoint]:
    """Measure schedules of a point's family at several shares of the unmerged ViT's MACs."""
    weights = FAMILIES[like.kind](config)
    for share in SHARES:
        schedule = within(config, weights, share * unmerged, proportional=like.schedule.proportional)
        if schedule is not None:
            yield measures.measure(like.kind, schedule)


def searched(
    config: Config, start: MergePoint, budget: float, measures: Measures, tries: int = TRIES
) -> MergePoint:
    """Move merges between neighboring layers as long as the results change less, in ever smaller steps.

    At most `tries` schedules are run; each is within the budget.
    """
    best, tried = start, {start.schedule.merges}
    step = max(1, max(start.schedule.merges) // 2)
    while step:
        improved = False
        for source, target in neighbors(config.num_layers - 1):
            merges = moved(config, best.schedule, source, target, step, budget)
            if merges is None or merges in tried:
                continue
            if len(tried) > tries:
                return best
            tried.add(merges)
            schedule = best.schedule.model_copy(update={"merges": merges})
            point = measures.measure(SEARCHED, schedule)
            if better(point, best):
                best, improved = point, True
        step = step if improved else step // 2
    return best


def neighbors(layers: int) -> Iterator[tuple[int, int]]:
    """Pairs of a layer and the one after or before it."""
    for layer in range(layers - 1):
        yield layer, layer + 1
        yield layer + 1, layer


def moved(
    config: Config, schedule: MergeSchedule, source: int, target: int, step: int, budget: float
) -> tuple[int, ...] | None:
    """Return the merges with `step` of them moved from one layer to another; None if that is not possible.

    A merge that comes later saves less, so the target merges more tokens until the budget is met.
    """
    merges = list(schedule.merges)
    merges[source] -= step
    merges[target] += step
    while True:
        most = most_merges(config.num_tokens, merges)
        if merges[source] < 0 or any(count > limit for count, limit in zip(merges, most, strict=True)):
            return None
        if merged_macs(config, schedule.model_copy(update={"merges": tuple(merges)})) <= budget:
            return tuple(merges)
        merges[target] += 1
