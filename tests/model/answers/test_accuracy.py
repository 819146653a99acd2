"""Intervals, floors, and ruin: against values of other code and by their definitions."""

from __future__ import annotations

from typing import Any

import pytest

from morvit_deploy.errors import AccuracyError
from morvit_deploy.model.answers.accuracy import Floor, Interval, Kept, ruin_of, wilson

PUBLISHED = 5e-4  # three digits are printed there


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(194, 200, 0.936, 0.986), (81, 263, 0.255, 0.366), (15, 148, 0.062, 0.160), (0, 20, 0.0, 0.161),
     (29, 29, 0.883, 1.0), (1, 1, 0.207, 1.0)],
)  # fmt: skip
def test_wilson(right: int, images: int, low: float, high: float) -> None:
    """From R. G. Newcombe, Statistics in Medicine 17 (1998), Table I, method 3, and by hand."""
    found = wilson(right / images, images)
    assert found == pytest.approx((low, high), abs=PUBLISHED)


def test_an_interval_in_words() -> None:
    assert str(Interval(0.93612, 0.98619)) == "93.6–98.6 %"


def test_a_floor_is_the_lower_end_of_the_trained_models_interval() -> None:
    floor = Floor.on(200, 0.97)
    assert floor.of == "top-1" and floor.at_least == wilson(0.97, 200).low
    assert floor.keeps(0.98, 0.965) and not floor.keeps(0.94, 0.93)
    assert floor.as_dict()["one_image"] == 0.005


def test_a_loss_beyond_chance_is_not_kept_within_a_wide_interval() -> None:
    """52 % ± 7 on 200 images: losing 13 images and gaining none is no chance."""
    floor = Floor.on(200, 0.52)
    assert floor.at_least < 0.455
    assert not floor.keeps(1 - 13 / 200, 0.52 - 13 / 200)
    assert floor.keeps(1 - 60 / 200, 0.52 - 13 / 200)


def test_without_labels_the_floor_is_of_agreement() -> None:
    floor = Floor.on(200, None)
    assert floor.of == "agreement" and floor.at_least == wilson(0.99, 200).low == pytest.approx(
        0.964, abs=1e-3
    )
    assert floor.keeps(0.965, None) and not floor.keeps(0.96, None)
    own = Floor.on(200, 0.97, min_agreement=0.5)
    assert own.keeps(0.5, 0.0) and not own.keeps(0.49, 1.0) and own.as_dict()["interval"] is None


@pytest.mark.parametrize(
    ("kept", "ruined"),
    [
        (Kept(200, 0.1, 0.08, 0.52), True),
        (Kept(200, 0.9, 0.89, 0.97), False),  # a loss, no ruin
        (Kept(200, 0.1, 0.97, 0.97), False),  # labels decide
        (Kept(200, 0.8), True),
        (Kept(200, 0.9), False),
        (Kept(5, 0.8), False),  # five images do not show it
        (Kept(5, 0.2), True),
        (Kept(200, 0.6, expected=0.62), False),  # as calibration recorded
        (Kept(1, 1.0), False),
    ],
)
def test_ruin(kept: Kept, ruined: bool) -> None:
    assert kept.ruined == ruined
    assert bool(ruin_of(kept, allow_worse=True, remedy="")) == ruined


def test_ruin_is_refused_in_words() -> None:
    with pytest.raises(AccuracyError) as refused:
        ruin_of(Kept(200, 0.1, 0.08, 0.52), allow_worse=False, remedy="Do it again")
    assert str(refused.value) == (
        "the plan ruins the model: top-1 is 8.00 % against 52.00 % of the trained model (95 % interval 5.0–12.6 %, "
        "200 images); expected at least 46.80 %. Do it again, or accept it with --allow-worse"
    )
    assert ruin_of(None, allow_worse=False, remedy="") == []


@pytest.mark.parametrize(
    "record",
    [None, {}, {"images": 0, "top1_agreement": 1.0}, {"images": 5}, {"images": "5", "top1_agreement": 0.1},
     {"images": 5, "top1_agreement": 4.79}, {"images": 5, "top1_agreement": float("nan")}],
    ids=str,
)  # fmt: skip
def test_a_plan_without_a_record(record: Any) -> None:
    assert Kept.recorded(record) is None


def test_a_plans_record() -> None:
    record = {"images": 200, "top1_agreement": 0.1, "top1": 0.08, "trained_top1": 0.52}
    assert Kept.recorded(record) == Kept(200, 0.1, 0.08, 0.52)
    assert Kept.recorded(record | {"top1": None, "trained_top1": None}) == Kept(200, 0.1)
