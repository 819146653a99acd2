"""The choice among the points of a calibration: the recommended point, or the one that was asked for. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.errors import PlanError
from morvit_deploy.model.answers.accuracy import Floor
from morvit_deploy.report import count

NAMES = {"topk": "top-k", "threshold": "threshold", "depth": "depth"}
SAME = 1e-9  # two scales that are the same number


@dataclass(frozen=True)
class Asked:
    """What the user asked for in place of the recommendation; at most one of the last four."""

    kind: str | None = None  # None: any
    budget_ms: float | None = None
    budget_macs: float | None = None
    pick: int | None = None  # row, from 1, of the points in order of cost
    scale: float | None = None


NOTHING = Asked()


def cheapest_first(points: Sequence[Point]) -> list[Point]:
    """Return points as tables list them: cheapest first, and of equally cheap ones the most accurate."""
    return sorted(points, key=lambda point: (point.expected, -point.accuracy))


def is_dominated(point: Point, points: Sequence[Point]) -> bool:
    """Whether another point is as cheap and as accurate, and better in one of them.

    Ladders for the trained routing compute the same logits: they trade cost for their number of buckets.
    """
    return any(
        all(a <= b for a, b in zip(_price(other), _price(point), strict=True))
        and _price(other) != _price(point)
        for other in points
    )


def recommend(points: Sequence[Point], floor: Floor) -> Point | None:
    """Return the cheapest point that is not dominated and keeps the floor; None if no point does.

    For the trained routing it is the preferred ladder: another bucket would save less than 2 %.
    """
    if points and points[0].is_fitted:
        return next((point for point in points if point.preferred), None)
    keeping = [point for point in points if floor.keeps(point.agreement, point.top1)]
    best = [point for point in keeping if not is_dominated(point, points)]
    return next(iter(cheapest_first(best)), None)


def choose(points: Sequence[Point], floor: Floor, asked: Asked = NOTHING) -> Point:
    """Return the point that was asked for, or else the recommended one of the kind.

    Within a budget it is the most accurate point, and of equally accurate ones the cheapest. If no point keeps the
    floor, it is the most accurate of all. Raises PlanError if there is no such point.
    """
    if asked.pick is not None:
        return _row(points, asked.pick, asked.kind)
    own = [point for point in points if asked.kind in (None, point.kind)]
    if asked.scale is not None:
        return _scaled(own, asked.scale)
    if asked.budget_ms is not None or asked.budget_macs is not None:
        return _within(own, asked)
    return recommend(own, floor) or max(own, key=lambda point: (point.accuracy, -point.expected))


def _price(point: Point) -> tuple[float, float, int]:
    buckets = len(point.ladder.schedules) if point.is_fitted and point.ladder else 0
    return point.expected, -point.accuracy, buckets


def _row(points: Sequence[Point], row: int, kind: str | None) -> Point:
    if not 1 <= row <= len(points):
        raise PlanError(f"pick: got row {row}, expected 1 to {len(points)} of the table of points")
    point = cheapest_first(points)[row - 1]
    if kind not in (None, point.kind):
        raise PlanError(
            f"pick: row {row} is {NAMES[point.kind]}, but mode is {kind!r}; leave out one of them"
        )
    return point


def _scaled(points: Sequence[Point], scale: float) -> Point:
    found = [point for point in points if point.scale is not None and abs(point.scale - scale) < SAME]
    if len(found) == 1:
        return found[0]
    if found:
        kinds = " and ".join(NAMES[point.kind] for point in found)
        raise PlanError(f"scale: got {scale:g}, which {kinds} points have; give mode too, or pick a row")
    known = sorted({point.scale for point in points if point.scale is not None})
    if not known:
        raise PlanError(f"scale: got {scale:g}, but the routing is the checkpoint's own and has no scale")
    raise PlanError(f"scale: got {scale:g}, expected one of {', '.join(f'{one:g}' for one in known)}")


def _within(own: Sequence[Point], asked: Asked) -> Point:
    """Return the most accurate point within a budget; for the trained routing the preferred ladder or the next."""
    limit = asked.budget_ms if asked.budget_macs is None else asked.budget_macs
    assert limit is not None

    def price(point: Point) -> float:
        return point.expected if asked.budget_macs is None else point.expected_macs

    within = [point for point in own if price(point) <= limit]
    if within and within[0].is_fitted:
        return max(within, key=lambda point: (point.preferred, price(point)))
    if within:
        return max(within, key=lambda point: (point.accuracy, -price(point)))
    nearest = min(own, key=price)
    if nearest.scale is not None:
        which = f"{nearest.scale:g} × the trained capacities"
    else:
        assert nearest.ladder is not None
        which = f"with {len(nearest.ladder.schedules)} buckets"
    text = _ms if asked.budget_macs is None else _macs
    kind = "" if asked.kind is None else f"{asked.kind} "
    raise PlanError(
        f"no {kind}plan is within the budget of {text(limit)} per image; the nearest costs {text(price(nearest))} "
        f"({which})"
    )


def _ms(value: float) -> str:
    return f"{value:.4g} ms"


def _macs(value: float) -> str:
    return f"{count(value)}MACs" if value >= 1000 else f"{value:g} MACs"
