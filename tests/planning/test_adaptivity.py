"""Whether adaptive depth can pay, from the points of a calibration."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from calibration_setup import calibrated

from morvit_deploy.calibration.adaptivity.depth_effect import DepthEffect
from morvit_deploy.calibration.adaptivity.rule import Adaptivity
from morvit_deploy.calibration.adaptivity.spread import Spread
from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.model.answers.accuracy import Floor
from morvit_deploy.planning.adaptivity import adaptivity_of, depth_effect_of
from morvit_deploy.planning.front import calibration_report

WIDE = Spread(5000, 20.0, 8.0, 9.0, 35.0, each=15e6, one=40e6)
FLOOR = Floor.on(5000, 0.97)


def topk(scale: float, mmacs: float, top1: float | None, agreement: float) -> Point:
    return Point("topk", scale, 1e6 * mmacs, 1e6 * mmacs, agreement, top1)


def threshold(scale: float, mmacs: float, top1: float | None, agreement: float) -> Point:
    point = replace(topk(scale, mmacs, top1, agreement), kind="threshold")
    return replace(point, spread=replace(WIDE, each=0.8e6 * mmacs))


POINTS = [
    topk(0.35, 18, 0.93, 0.94),
    topk(1, 26, 0.97, 1.0),
    topk(1.6, 34, 0.97, 0.99),
    threshold(0.35, 20, 0.9, 0.91),
    threshold(0.5, 22, 0.97, 0.99),
    threshold(1, 30, 0.97, 0.99),
]


def found_in(points: list[Point], floor: Floor = FLOOR) -> Adaptivity:
    return adaptivity_of(points, floor, "MACs", 52e6)


def test_the_cheapest_thresholds_that_keep_accuracy_are_held_against_top_k() -> None:
    found = found_in(POINTS)
    assert found.spread == POINTS[4].spread and found.topk == 26e6 and found.keeps and found.full is None
    assert found.depth == DepthEffect(5000, "top-1", 0.35, 0.97, 0.93, pytest.approx(0.06))
    assert found.sentence == (
        "Counts vary, depth matters: adaptive routing can save up to 1.48× over top-k."  # 26 / 17.6
    )


def test_no_thresholds_keep_it() -> None:
    found = found_in([*POINTS[:4], threshold(1, 30, 0.5, 0.5)])
    assert found.outcome == "no thresholds keep accuracy"
    assert found.spread is not None and found.spread.each == 24e6  # of the trained capacities


def test_depth_is_judged_by_agreement_without_labels() -> None:
    bare = [replace(point, top1=None) for point in POINTS]
    found = found_in(bare, Floor.on(5000, None))
    assert found.depth == DepthEffect(5000, "agreement", 0.35, 1.0, 0.94, pytest.approx(0.06))
    assert found.depth is not None and found.depth.effect == "matters"


@pytest.mark.parametrize(
    "points",
    [
        [POINTS[1]],
        [topk(0.35, 26, 0.97, 1.0), POINTS[1]],  # capacities of one token cannot be smaller
        [POINTS[0]],
        POINTS[3:],
        [],
    ],
    ids=["own only", "as expensive", "own is missing", "thresholds only", "none"],
)
def test_without_a_smaller_budget_the_effect_is_not_measured(points: list[Point]) -> None:
    assert depth_effect_of(points, FLOOR) is None
    assert found_in(points).depth is None


def test_top_k_alone_says_whether_depth_matters() -> None:
    assert found_in(POINTS[:3]).outcome == "not measured"
    flat = [topk(0.35, 18, 0.97, 0.995), *POINTS[1:3]]
    assert found_in(flat).sentence.startswith("Depth does not matter for this model: a smaller budget loses")


def test_depths_chosen_up_front_are_held_against_full() -> None:
    point = replace(threshold(1, 20, 0.97, 1.0), kind="depth", scale=None)
    found = found_in([replace(point, preferred=True)])
    assert (found.full, found.topk, found.depth) == (52e6, None, None)
    assert found.sentence == "Counts vary: adaptive routing can save up to 3.25× over `full`."  # 52 / 16


@pytest.mark.parametrize("mode", ["threshold", "topk", "depth"])
def test_reports_and_records_have_it(mode: str) -> None:
    found = calibrated(mode, labelled=True)
    record = json.loads(json.dumps(found.as_dict(), allow_nan=False))["adaptivity"]
    assert record["outcome"] == found.adaptivity.outcome
    assert (record["counts"] is None) == (mode == "topk") and (record["depth"] is None) == (mode == "depth")
    assert found.adaptivity.sentence in found.conclusion
    for text in (report := calibration_report(found)).markdown(), report.html():
        assert "Adaptive depth" in text and found.adaptivity.outcome in text


def test_few_images_tell_nothing() -> None:
    assert calibrated(labelled=True).adaptivity.sentence == (
        "It cannot be told whether adaptive routing can save: 5 images are too few; at least 30 are needed."
    )
