"""Merges read from a graph's probes: right ones are counted as equal, each wrong one is noticed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from merged_models import MERGED, merged_config, merged_named
from static_bundle import StaticBundle
from tiny_models import random_model, random_pixels

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import own_plan
from morvit_deploy.verifying.merges import MergeRoutes, routes_of
from morvit_deploy.verifying.outcome import Verification


def verified(
    config: Config, alter: Callable[[Arrays], None] = lambda outputs: None, **how: Any
) -> Verification:
    bundle = StaticBundle(random_model(config), own_plan(config), alter=alter, **how)
    return bundle.verify(random_pixels(config, 8))


@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_equal_merges(changes: dict[str, Any]) -> None:
    found = verified(merged_config(**changes))
    assert found.passed, found.failure
    assert found.router_agreement == [1.0] * len(changes["capacity"])


def test_a_wrong_partner_is_a_wrong_decision() -> None:
    def other_partner(outputs: Arrays) -> None:
        into = outputs["step2.into"] = outputs["step2.into"].copy()
        into[0, 0] = np.roll(into[0, 0], 1)

    found = verified(merged_config(), other_partner)
    assert found.router_agreement is not None
    assert found.router_agreement[0] == 1.0 and found.router_agreement[1] < 1.0


def test_the_first_stage_that_differs_is_named() -> None:
    def broken(outputs: Arrays) -> None:
        order = outputs["step1.order"] = outputs["step1.order"].copy()
        order[:, 0] = (order[:, 0] + 1) % 8
        outputs["logits"] = outputs["logits"] + 1.0

    found = verified(merged_config(), broken)
    assert not found.passed and found.first_divergence is not None
    assert found.first_divergence.startswith("step1.into")


def test_a_wrong_state_is_named() -> None:
    def broken(outputs: Arrays) -> None:
        outputs["step3.state"] = outputs["step3.state"] + 1.0
        outputs["logits"] = outputs["logits"] + 1.0

    found = verified(merged_config(), broken)
    assert found.first_divergence is not None and found.first_divergence.startswith("step3.state")


def test_wrong_depths_are_noticed() -> None:
    def shallow(outputs: Arrays) -> None:
        outputs["depth"] = outputs["depth"] * 0

    assert not verified(merged_config(), shallow).passed


def test_by_hand() -> None:
    """Five tokens and CLS: A are patches 1 and 3, B are 0, 2 and 4."""
    config = merged_config(image_size=32, capacity=[14, 12], reduction={"layers": [0, 1]})
    routes = routes_of(config, (14, 12))
    assert isinstance(routes, MergeRoutes)
    into = np.zeros((1, 2, 8))
    into[0, 0, 3] = into[0, 1, 0] = 1  # patches 2 · 3 and 0
    second = np.zeros((1, 2, 7))
    second[0, 0, 0] = second[0, 1, 1] = 1
    outputs = {
        "logits": np.zeros((1, 10)), "step1.order": np.array([[2, 0]]), "step1.into": into,
        "step2.order": np.array([[0, 6]]), "step2.into": second,
    }  # fmt: skip
    merges = routes.merges(outputs)
    assert merges is not None
    assert merges[0].into[0, [5, 1]].tolist() == [6, 0]
    first = [3, 7, 9, 11, 13, 15, 0, 2, 4, 6, 8, 10, 12, 14]
    assert merges[0].held[0].tolist() == first
    a, b = first[1::2], first[::2]
    assert merges[1].into[0, [a[0], a[6]]].tolist() == [b[0], b[1]]
    assert merges[1].held[0].tolist() == [*a[1:6], *b]
    depths = routes.depths(outputs)
    assert depths is not None and depths[0, [5, 1, a[0], b[0]]].tolist() == [0, 0, 1, 2]


def test_without_probes() -> None:
    routes = routes_of(merged_config(), (12, 9, 7))
    outputs = {"logits": np.zeros((2, 10))}
    assert routes.held(outputs) is None and routes.runs(outputs) is None
    assert list(routes.stages_of(outputs)) == ["logits"]
