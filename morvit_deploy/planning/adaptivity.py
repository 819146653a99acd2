"""Whether adaptive depth can pay, from the points of a calibration. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.calibration.adaptivity.depth_effect import DepthEffect
from morvit_deploy.calibration.adaptivity.rule import Adaptivity
from morvit_deploy.calibration.buckets.choice import recommend
from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.calibration.routing.sequence import OWN
from morvit_deploy.model.answers.accuracy import Floor


def adaptivity_of(points: Sequence[Point], floor: Floor, unit: str, dense: float) -> Adaptivity:
    """Return what the points say: the depth's effect from top-k, and the counts of the cheapest adaptive point.

    That is the point whose bucket for each image costs least among those that keep the floor, or else the one of the
    trained capacities.
    """
    adaptive = [point for point in points if point.spread is not None]
    keeping = [point for point in adaptive if floor.keeps(point.agreement, point.top1)]
    best = min(
        keeping or [point for point in adaptive if point.scale in (None, OWN)], key=_each, default=None
    )
    topk = recommend([point for point in points if point.kind == "topk"], floor)
    return Adaptivity(
        depth=depth_effect_of(points, floor),
        spread=None if best is None else best.spread,
        topk=None if topk is None else topk.expected,
        keeps=bool(keeping),
        unit=unit,
        full=dense if best is not None and best.scale is None else None,  # fitted to the trained routing
    )


def depth_effect_of(points: Sequence[Point], floor: Floor) -> DepthEffect | None:
    """Return what top-k at the smallest budget loses against the trained capacities; None without a smaller budget.

    The images that are right at one budget only are at most those whose decision changes.
    """
    topk = {point.scale: point for point in points if point.kind == "topk"}
    own, least = topk.get(OWN), min(topk.values(), key=lambda point: point.expected_macs, default=None)
    if own is None or least is None or least.scale is None or least.expected_macs >= own.expected_macs:
        return None
    changed = min(1.0, (1 - own.agreement) + (1 - least.agreement))
    if own.top1 is None or least.top1 is None:
        return DepthEffect(floor.images, "agreement", least.scale, own.agreement, least.agreement, changed)
    return DepthEffect(floor.images, "top-1", least.scale, own.top1, least.top1, changed)


def _each(point: Point) -> float:
    assert point.spread is not None
    return point.spread.each
