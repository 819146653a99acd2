"""The choice among points: the recommendation, and what a user may ask for instead."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morvit_deploy.calibration.buckets.choice import Asked, cheapest_first, choose, is_dominated, recommend
from morvit_deploy.calibration.buckets.ladders import Ladder
from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.errors import PlanError
from morvit_deploy.model.answers.accuracy import Floor


def point(
    scale: float | None, cost: float, agreement: float, top1: float | None = None, **more: Any
) -> Point:
    fields = {"kind": "threshold", "expected": cost, "expected_macs": 1e6 * cost} | more
    return Point(scale=scale, agreement=agreement, top1=top1, **fields)  # type: ignore[arg-type]  # each has its type


FRONT = [
    point(0.5, 10, 0.90, 0.80, kind="topk"),
    point(0.5, 20, 0.91, 0.95),
    point(0.7, 30, 0.95, 0.93),
    point(1.0, 40, 0.99, 0.95, preferred=True),
    point(1.6, 50, 0.99, 0.95),
]
UNLABELLED = [point(p.scale, p.expected, p.agreement, kind=p.kind) for p in FRONT]
FLOOR = Floor.on(200, None)  # agreement of 96.4 %

# the trained digits model on its 200 test images: kind, scale, MMACs, top-1, agreement
DIGITS = [
    point(scale, cost, agreement, top1, kind=kind)
    for kind, scale, cost, top1, agreement in [
        ("topk", 0.35, 18.12, 0.93, 0.935), ("topk", 0.5, 19.91, 0.965, 0.98), ("topk", 0.7, 22.43, 0.975, 0.995),
        ("topk", 0.85, 24.29, 0.97, 1.0), ("topk", 1.0, 26.18, 0.97, 1.0), ("topk", 1.25, 29.44, 0.965, 0.995),
        ("threshold", 0.35, 20.29, 0.89, 0.90), ("threshold", 0.5, 23.05, 0.955, 0.975),
        ("threshold", 0.7, 25.58, 0.965, 0.985), ("threshold", 1.0, 31.0, 0.97, 0.99),
    ]
]  # fmt: skip  # a row each


def test_top_k_is_recommended_where_thresholds_cost_more() -> None:
    found = recommend(DIGITS, Floor.on(200, 0.97))
    assert found is not None and (found.kind, found.scale) == ("topk", 0.5)
    assert not is_dominated(found, DIGITS)
    assert is_dominated(DIGITS[-1], DIGITS), "31 MMACs for what top-k does with less"
    assert choose(DIGITS, Floor.on(200, 0.97)) is found


def test_without_labels_agreement_decides() -> None:
    bare = [point(p.scale, p.expected, p.agreement, kind=p.kind) for p in DIGITS]
    found = recommend(bare, Floor.on(200, None))
    assert found is not None and (found.kind, found.scale) == ("topk", 0.5)
    strict = recommend(bare, Floor.on(200, None, min_agreement=0.99))
    assert strict is not None and (strict.kind, strict.scale) == ("topk", 0.7)
    exact = recommend(bare, Floor.on(200, None, min_agreement=1.0))
    assert exact is not None and (exact.kind, exact.scale) == ("topk", 0.85)


def test_more_images_recommend_less_loss() -> None:
    """3.5 points of top-1 are lost by chance on 100 images, not on 10,000."""
    assert recommend(DIGITS, Floor.on(10_000, 0.97)) is not DIGITS[1]
    kept = recommend(DIGITS, Floor.on(10_000, 0.97))
    assert kept is not None and kept.top1 is not None and kept.top1 >= 0.97


def test_thresholds_are_recommended_where_they_pay() -> None:
    points = [
        point(1.0, 40, 1.0, 0.9, kind="topk"),
        point(0.7, 30, 0.8, 0.7, kind="topk"),
        point(1.0, 25, 0.98, 0.9),
    ]
    assert recommend(points, Floor.on(200, 0.9)) is points[2]


def test_of_equal_costs_the_most_accurate() -> None:
    points = [point(0.5, 10, 0.98), point(1.0, 10, 1.0, kind="topk")]
    assert recommend(points, FLOOR) is points[1] and is_dominated(points[0], points)


def test_equal_points_do_not_dominate_each_other() -> None:
    twins = [point(0.5, 10, 0.98), point(1.0, 10, 0.98)]
    assert not any(is_dominated(one, twins) for one in twins)


def test_buckets_count_only_among_chosen_depths() -> None:
    one, two = (Ladder(((16, 16),) * buckets, None, 10.0, (1.0,) * buckets, 0.0) for buckets in (1, 2))
    alike = [point(1.0, 10, 0.98, ladder=one), point(1.0, 10, 0.98, ladder=two)]
    assert not any(is_dominated(each, alike) for each in alike)
    depths = [depth(1, 10), depth(2, 10)]
    assert [is_dominated(each, depths) for each in depths] == [False, True]


def test_nothing_is_recommended_below_the_floor() -> None:
    poor = [point(0.5, 10, 0.3), point(1.0, 20, 0.5), point(1.6, 30, 0.5)]
    assert recommend(poor, FLOOR) is None
    assert choose(poor, FLOOR) is poor[1], "the most accurate, and of equals the cheapest"


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=12),
    st.booleans(),
)
def test_a_recommendation_is_never_dominated_and_keeps_the_floor(
    rows: list[tuple[int, int, int]], labelled: bool
) -> None:
    points = [point(1.0, cost, a / 20, b / 20 if labelled else None) for cost, a, b in rows]
    points.append(point(1.0, 8, 1.0, 0.8 if labelled else None, kind="topk"))  # the trained model itself
    floor = Floor.on(20, 0.8 if labelled else None)
    found = recommend(points, floor)
    assert found is not None and floor.keeps(found.agreement, found.top1)
    cheaper = [p for p in points if p.expected < found.expected and floor.keeps(p.agreement, p.top1)]
    assert all(is_dominated(p, points) for p in cheaper)
    assert not [p for p in points if p.expected <= found.expected and p.accuracy > found.accuracy]


# --- what the user asks for


@pytest.mark.parametrize("row", [1, 4, 10])
def test_a_row_of_the_table(row: int) -> None:
    assert choose(DIGITS, FLOOR, Asked(pick=row)) is cheapest_first(DIGITS)[row - 1]


def test_a_scale() -> None:
    assert choose(FRONT, FLOOR, Asked(scale=0.7)) is FRONT[2]
    assert choose(FRONT, FLOOR, Asked("topk", scale=0.5)) is FRONT[0]
    assert choose(FRONT, FLOOR, Asked("threshold", scale=0.1 + 0.4)) is FRONT[1]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (Asked(pick=6), "pick: got row 6, expected 1 to 5"),
        (Asked(pick=0), "pick: got row 0, expected 1 to 5"),
        (Asked("threshold", pick=1), "pick: row 1 is top-k, but mode is 'threshold'"),
        (Asked(scale=0.6), "scale: got 0.6, expected one of 0.5, 0.7, 1, 1.6"),
        (Asked(scale=0.5), "scale: got 0.5, which top-k and threshold points have; give mode too"),
        (Asked("topk", scale=1.0), "scale: got 1, expected one of 0.5"),
    ],
    ids=str,
)
def test_what_there_is_not(asked: Asked, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        choose(FRONT, FLOOR, asked)


def test_chosen_depths_have_no_scale() -> None:
    with pytest.raises(PlanError, match="scale: got 1, but the routing is the checkpoint's own"):
        choose(LADDERS, FLOOR, Asked(scale=1.0))


@pytest.mark.parametrize(
    ("points", "budget", "scale"),
    [
        (FRONT, 60, 0.5),
        (UNLABELLED, 60, 1.0),
        (UNLABELLED, 39, 0.7),
        (UNLABELLED, 40, 1.0),
        (UNLABELLED, 20, 0.5),
    ],
    ids=["cheapest of the best top-1", "cheapest that agrees best", "within", "just within", "only one"],
)
def test_a_budget_buys_the_worthiest(points: list[Point], budget: float, scale: float) -> None:
    for asked in (Asked("threshold", budget_ms=budget), Asked("threshold", budget_macs=1e6 * budget)):
        bought = choose(points, FLOOR, asked)
        assert (bought.kind, bought.scale) == ("threshold", scale)


def depth(buckets: int, cost: float, **more: Any) -> Point:
    ladder = Ladder(((16, 16),) * buckets, None, cost, (1.0,) * buckets, 0.0)
    return point(None, cost, 1.0, kind="depth", ladder=ladder, **more)


LADDERS = [depth(1, 20), depth(2, 10, preferred=True), depth(3, 8), depth(4, 7)]


@pytest.mark.parametrize(("budget", "buckets"), [(30, 2), (10, 2), (9, 3), (7, 4)])
def test_a_budget_buys_no_more_buckets_than_it_takes(budget: float, buckets: int) -> None:
    found = choose(LADDERS, FLOOR, Asked("depth", budget_ms=budget)).ladder
    assert found is not None and len(found.schedules) == buckets


def test_of_ladders_the_preferred_is_recommended_and_none_is_dominated() -> None:
    assert recommend(LADDERS, FLOOR) is LADDERS[1] is choose(LADDERS, FLOOR)
    assert not any(is_dominated(one, LADDERS) for one in LADDERS)


def test_a_budget_that_no_plan_meets_names_the_nearest() -> None:
    for asked, message in (
        (Asked("threshold", budget_ms=12), r"no threshold plan .* 12 ms per image.* costs 20 ms \(0.5 × the trained"),
        (Asked("threshold", budget_macs=12e6), r"no threshold plan .* 12 MMACs .* nearest costs 20 MMACs \(0.5 ×"),
        (Asked("threshold", budget_macs=3), r"within the budget of 3 MACs per image"),
        (Asked(budget_ms=5), r"no plan is within the budget of 5 ms per image; the nearest costs 10 ms"),
    ):  # fmt: skip
        with pytest.raises(PlanError, match=message):
            choose(FRONT, FLOOR, asked)
    with pytest.raises(PlanError, match=r"no depth plan .* nearest costs 7 ms \(with 4 buckets\)"):
        choose(LADDERS, FLOOR, Asked("depth", budget_ms=6))
