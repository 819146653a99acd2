"""What a calibration concludes, in words, from made-up points."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from calibration_setup import calibrated

from morvit_deploy.calibration.buckets.choice import recommend
from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.model.answers.accuracy import Floor
from morvit_deploy.planning.rounds import Calibrated


def point(kind: str, scale: float, mmacs: float, top1: float | None, agreement: float) -> Point:
    return Point(kind, scale, 1e6 * mmacs, 1e6 * mmacs, agreement, top1)


def concluded(points: list[Point], floor: Floor, chosen: int | None = None) -> Calibrated:
    best = recommend(points, floor)
    picked = best if chosen is None else points[chosen]
    assert picked is not None
    return replace(calibrated(), points=points, floor=floor, recommended=best, chosen=picked)


TOPK = point("topk", 1.0, 26.2, 0.97, 1.0)
THRESHOLD = point("threshold", 1.0, 31.0, 0.97, 0.99)


def test_adaptivity_that_does_not_pay_is_a_result() -> None:
    found = concluded([TOPK, THRESHOLD], Floor.on(200, 0.97))
    assert found.adaptivity_pays is False
    assert found.conclusion == (
        "Recommended: top-k at the trained capacities, which `export` gives without a plan, 26.2 MMACs per image; "
        "top-1 is 97.00 %, not below the 95 % interval of the trained model's 97.00 % (93.6–98.6 % on 200 images; "
        "one image is 0.50 %). Adaptivity does not pay here: thresholds that keep top-1 cost at least 31 MMACs."
    )


def test_adaptivity_that_pays() -> None:
    cheap = point("threshold", 0.7, 15.0, 0.965, 0.985)
    found = concluded([TOPK, cheap], Floor.on(200, 0.97))
    assert found.adaptivity_pays is True
    assert found.conclusion.startswith("Recommended: thresholds at 0.7 × the trained capacities, 15 MMACs")
    assert found.conclusion.endswith(
        "Adaptivity pays here: top-k that keeps top-1 costs at least 26.2 MMACs."
    )


def test_no_thresholds_keep_it() -> None:
    found = concluded([TOPK, replace(THRESHOLD, top1=0.5, agreement=0.5)], Floor.on(200, 0.97))
    assert found.conclusion.endswith("Adaptivity does not pay here: no thresholds point keeps top-1.")


def test_another_choice_is_named_beside_the_recommendation() -> None:
    found = concluded([TOPK, THRESHOLD, point("topk", 0.35, 18.1, 0.9, 0.91)], Floor.on(200, 0.97), chosen=2)
    assert found.conclusion.endswith(
        "This plan is row 1, top-k at 0.35 × the trained capacities, which does not keep top-1."
    )


def test_nothing_is_recommended() -> None:
    poor = [replace(THRESHOLD, top1=None, agreement=0.2)]
    found = concluded(poor, Floor.on(200, None), chosen=0)
    assert found.adaptivity_pays is None and found.as_dict()["recommended"] is None
    assert found.conclusion.startswith("Nothing is recommended: no point keeps agreement of at least 96.")


@pytest.mark.parametrize(
    ("floor", "words"),
    [
        (
            Floor.on(200, None),
            "agreement is 100.00 %, not below the 95 % interval of 99 % (96.4–99.7 % on 200",
        ),
        (Floor.on(200, 0.97, 0.98), "agreement is 100.00 %, at least 98.00 % (on 200 images; one image is"),
        (Floor.on(40, 0.97), "One image is 2.50 %: calibrate with hundreds before relying on this."),
    ],
)
def test_the_floor_is_named(floor: Floor, words: str) -> None:
    assert words in concluded([TOPK, THRESHOLD], floor).conclusion


def test_top_k_alone_says_nothing_of_adaptivity() -> None:
    found = concluded([TOPK], Floor.on(200, 0.97))
    assert found.adaptivity_pays is None and "daptivity" not in found.conclusion


def test_chosen_depths() -> None:
    found = calibrated("depth", labelled=True)
    assert found.adaptivity_pays is True
    assert "Recommended: 2 buckets fitted to the depths of tokens" in found.conclusion
    assert "Adaptivity pays here: 4.1" in found.conclusion or "× cheaper than `full`" in found.conclusion


def test_a_pareto_file_marks_what_is_dominated() -> None:
    data: dict[str, Any] = concluded([TOPK, THRESHOLD], Floor.on(200, 0.97)).as_dict()
    assert [(one["kind"], one["row"], one["dominated"], one["keeps"]) for one in data["points"]] == [
        ("topk", 1, False, True),
        ("threshold", 2, True, True),
    ]
    assert data["recommended"] == {"kind": "topk", "scale": 1.0, "row": 1}
    assert data["adaptivity_pays"] is False and data["floor"]["of"] == "top-1"
