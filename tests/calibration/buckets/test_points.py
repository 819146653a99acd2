"""Points of a front and the choice among them. Means of whole numbers: equal to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from calibration_setup import last_of, run_of
from tiny_models import make_config

from morvit_deploy.calibration.buckets.costs import MacCost, MeasuredCost
from morvit_deploy.calibration.buckets.ladders import evaluate_exact, evaluate_predicted
from morvit_deploy.calibration.buckets.points import MAX_BUCKETS, Point, points_of
from morvit_deploy.calibration.routing.sequence import OWN, SCALES, scaled
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs, stem_macs

CONFIG = make_config()  # 16 tokens; 12, 6, 3 go on
COUNTS = [[9, 5, 2], [4, 4, 1], [12, 6, 3], [12, 10, 6], [9, 4, 2]]
TAUS = ((0.1, 0.2, 0.3),) * len(SCALES)
MS = MeasuredCost((0, 16), (1.0, 17.0), 0.5)
SUM = 1e-9  # a few sums in another order


def front(config: Config = CONFIG, counts: Any = COUNTS, costs: Any = None, **how: Any) -> list[Point]:
    run = how.pop("run", None) or run_of()
    buckets, thresholds = how.pop("buckets", None), how.pop("thresholds", TAUS)
    return points_of(
        config, last_of(config, counts, run, **how), thresholds, costs or MacCost(config), buckets
    )


def of_kind(points: list[Point], kind: str) -> list[Point]:
    return [point for point in points if point.kind == kind]


def test_a_point_for_each_scale_and_kind() -> None:
    points = front()
    assert [(p.kind, p.scale) for p in points] == [
        (kind, s) for kind in ("topk", "threshold") for s in SCALES
    ]
    for point in of_kind(points, "topk"):
        assert point.scale is not None
        assert point.expected == point.expected_macs == schedule_macs(CONFIG, scaled(CONFIG, point.scale))
        assert point.ladder is None and point.thresholds is None
    assert all(point.preferred == (point.scale == OWN) for point in points)
    json.dumps([point.as_dict() for point in points], allow_nan=False)


@pytest.mark.parametrize("buckets", [1, 2, 3, None])
def test_a_threshold_point_is_its_ladder(buckets: int | None) -> None:
    point = of_kind(front(buckets=buckets), "threshold")[0]
    ladder = point.ladder
    assert (
        ladder is not None and ladder.upto is not None and len(ladder.schedules) <= (buckets or MAX_BUCKETS)
    )
    full = schedule_macs(CONFIG, (16,) * 3)
    judged = evaluate_predicted(
        np.array(COUNTS), 0, ladder.schedules, ladder.upto, lambda s: MacCost(CONFIG).of(s, TAUS[0]),
        again=full - stem_macs(CONFIG),
    )  # fmt: skip
    assert judged == ladder and point.expected == point.expected_macs == judged.expected
    assert point.overflow == ladder.overflow
    assert point.unpadded == MacCost(CONFIG).of(np.array(COUNTS), TAUS[0]).mean() <= point.expected
    assert buckets != 1 or point.expected == full


def test_without_a_number_up_to_max_buckets_are_tried() -> None:
    config = make_config(routing="token_choice", num_recursions=1)
    varied = [[16, count, count] for count in range(1, 17)]
    run = run_of("depth", scales=(OWN,))
    points = front(config, varied, run=run, thresholds=((),))
    numbers = [len(point.ladder.schedules) for point in points if point.ladder]
    assert numbers == list(range(1, MAX_BUCKETS + 1))


def test_unrouted_steps_are_not_fitted() -> None:
    config = make_config(capacity=[16, 6, 6])
    taus = ((None, 0.2, None),) * len(SCALES)
    point = of_kind(front(config, [[16, 9, 9], [16, 5, 5]], thresholds=taus, buckets=2), "threshold")[0]
    assert point.ladder is not None and point.ladder.schedules == ((9,), (16,))
    assert point.expected == schedule_macs(config, (16, 9, 9))


def test_a_second_run_repeats_no_step_before_the_first_routed_one() -> None:
    config = make_config(capacity=[16, 8, 4])
    taus = ((None, 0.2, 0.3),) * len(SCALES)
    found = front(config, [[16, 5, 2]] * 40 + [[16, 5, 5]], thresholds=taus, buckets=2)
    point = of_kind(found, "threshold")[0]
    assert point.ladder is not None and point.ladder.schedules[0] == (5, 2) and point.overflow == 1 / 41
    bucket, full = MacCost(config).of(np.array([[16, 5, 2], [16, 16, 16]]), taus[0])
    assert point.expected == pytest.approx(bucket + (full - stem_macs(config, 1)) / 41, rel=SUM)


def test_milliseconds_beside_macs() -> None:
    macs, timed = front(buckets=2), front(costs=MS, buckets=2)
    for one, other in zip(of_kind(macs, "topk"), of_kind(timed, "topk"), strict=True):
        assert one.expected_macs == other.expected_macs
        assert other.expected == MS.of(np.array([scaled(CONFIG, other.scale or 0)]))[0]
    point = of_kind(timed, "threshold")[0]
    assert point.ladder is not None and point.ladder.upto is not None
    full = evaluate_predicted(
        np.array(COUNTS), 0, point.ladder.schedules, point.ladder.upto, MS.of, again=17.0
    )  # the trunk of full
    assert abs(point.expected - full.expected) < SUM
    assert point.expected_macs > 1000 * point.expected


def test_depths() -> None:
    config = make_config(routing="token_choice", num_recursions=1)
    counts, run = [[16, 9, 2], [16, 12, 5], [16, 9, 3]], run_of("depth", scales=(OWN,))
    full, two = front(config, counts, run=run, thresholds=((),), buckets=2)
    for number, point in enumerate((full, two), start=1):
        assert (point.kind, point.scale, point.thresholds) == ("depth", None, None)
        assert point.ladder is not None and len(point.ladder.schedules) == number
        assert point.ladder == evaluate_exact(np.array(counts), point.ladder.schedules, MacCost(config).of)
        assert point.agreement == 1.0 and point.overflow == 0 and point.expected == point.expected_macs
        assert point.unpadded == MacCost(config).of(np.array(counts)).mean() <= point.expected
    assert two.preferred and not full.preferred and two.expected < full.expected
    as_many_as_pay = front(config, counts, run=run, thresholds=((),))
    assert [point.preferred for point in as_many_as_pay].count(True) == 1
    assert len(as_many_as_pay) <= 4  # three images: more buckets bring nothing


def test_top_k_alone() -> None:
    assert {point.kind for point in front(run=run_of("topk"), thresholds=((),) * 7)} == {"topk"}


def test_a_front_can_be_read_where_there_is_no_torch() -> None:
    modules = (
        "planning.front",
        "calibration.buckets.points",
        "calibration.buckets.plan",
        "calibration.buckets.choice",
        "planning.conclusion",
        "calibration.routing.shards",
        "calibration.buckets.costs",
    )
    code = f"import sys, {', '.join('morvit_deploy.' + name for name in modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
