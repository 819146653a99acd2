"""The greedy search lifts the worst layers first, and no more than it must."""

from __future__ import annotations

import json

import numpy as np
import pytest

from morvit_deploy.calibration.ranges.sensitivity import Score, score, search, snr_db

NOISE = {"a": 0.1, "b": 2.0, "c": 0.0, "d": 0.7}  # points that a layer costs in int8


class Measure:
    """Every layer that is not lifted costs its points; counts how often it is asked."""

    def __init__(self) -> None:
        self.asked: list[frozenset[str]] = []

    def __call__(self, lifted: frozenset[str]) -> Score:
        self.asked.append(lifted)
        drop = sum(points for layer, points in NOISE.items() if layer not in lifted)
        return Score(drop, 30 - 10 * drop)


def test_nothing_is_lifted_when_the_drop_is_met() -> None:
    measure = Measure()
    found = search(list(NOISE), measure, allowed=3.0)
    assert (found.lifted, found.met, found.lifts) == ((), True, ())
    assert measure.asked == [frozenset()], "no layer needs to be measured then"


@pytest.mark.parametrize(
    ("allowed", "lifted"), [(1.0, ("b",)), (0.5, ("b", "d")), (0.0, ("b", "d", "a"))], ids=str
)
def test_the_worst_are_lifted_until_it_is_met(allowed: float, lifted: tuple[str, ...]) -> None:
    found = search(list(NOISE), Measure(), allowed)
    assert found.lifted == lifted and found.met
    assert [lift.layer for lift in found.lifts] == ["b", "d", "a", "c"], "the table has every layer"
    last = [lift.after for lift in found.lifts if lift.after]
    assert last[-1].drop <= allowed
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_drop_that_cannot_be_met_is_told() -> None:
    found = search(["a"], lambda lifted: Score(1.0, 10.0), allowed=0.5)
    assert not found.met and found.lifted == ("a",)


def test_scores() -> None:
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    other = logits.copy()
    other[0] = [0.0, 1.0]
    assert score(logits, other, None).drop == 25.0, "of agreement"
    assert score(logits, other, [1, 1, 0, 1]).drop == -25.0, "of top-1: by luck it is right now"
    assert snr_db(logits, logits) == float("inf")
    assert snr_db(np.ones(4), np.ones(4) * 1.1) == pytest.approx(20.0)
    assert snr_db(np.ones(4), np.array([1, 1, 1, np.nan])) == float("-inf")
