"""The search for pictures at the bounds counts tokens in float32; what is compared is judged in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from static_bundle import StaticBundle
from tiny_models import random_model

from morvit_deploy.verifying import dispatching
from morvit_deploy.verifying.dispatching import DispatchComparison
from morvit_deploy.verifying.findings import Edges

LADDERS = {"thresholds": (EXPERT, threshold_ladder()), "depths": (TOKEN, depth_ladder())}
both = pytest.mark.parametrize("name", LADDERS)


def searched(
    name: str, monkeypatch: pytest.MonkeyPatch, scout: int | None = None
) -> tuple[DispatchComparison, Edges]:
    """A sound bundle's comparison after its search; `scout` is the seed of another model to count with."""
    found: list[DispatchComparison] = []
    own = DispatchComparison.add_edges

    def add_edges(self: DispatchComparison, *given: object) -> None:
        if scout is not None:
            self.scout = random_model(self.reference.config, scout)
        own(self)
        found.append(self)

    config, plan = LADDERS[name]
    with monkeypatch.context() as patch:
        patch.setattr(DispatchComparison, "add_edges", add_edges)
        result = StaticBundle(random_model(config), plan).verify()
    assert result.passed, result.failure
    assert result.edges is not None
    return found[0], result.edges


@both
def test_the_pictures_are_those_that_float64_would_find(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quick, edges = searched(name, monkeypatch)
    assert any(outcome is None for outcome in quick.pooled), "most are only counted"
    monkeypatch.setattr(dispatching, "SURE", math.inf)
    exact, wanted = searched(name, monkeypatch)
    assert all(outcome is not None for outcome in exact.pooled), "in doubt, float64 counts"
    assert edges == wanted
    np.testing.assert_array_equal(quick.pool.pictures, exact.pool.pictures)
    np.testing.assert_array_equal(quick.pool.counts, exact.pool.counts)
    assert quick.pool.clear == exact.pool.clear


def test_a_picture_that_is_elsewhere_in_float64_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    _, sound = searched("thresholds", monkeypatch)
    _, misled = searched("thresholds", monkeypatch, scout=9)
    assert misled.reached < sound.reached and misled.wrong == 0
