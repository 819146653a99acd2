"""The scout in float64 against the ragged reference, which routes one image at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from config_matrix import EXPERT, OPTIONS, TOKEN, named
from tiny_models import EXACT, make_config, normalised, random_model, random_pixels

from morvit_deploy.calibration.routing.scout import Scout, Scouted
from morvit_deploy.model.trace import Outcome, Routing

IMAGES = 6
ROUTED = [changes for changes in (*EXPERT, *OPTIONS) if changes.get("routing") != "token_choice"]
ROUTED += [
    {"format": "morvit/2", "pooling": "mean", "sharing": "cycle"},  # tokens that left are in the mean
    {"format": "morvit/2", "pooling": "mean_norm"},
]
DEPTHS = [changes for changes in (*TOKEN, *OPTIONS) if changes.get("routing") == "token_choice"]
TAUS = [(0.1, 0.0, 0.2), (None, -0.2, 0.1), (0.2, None, -0.3), (None, None, None), (0.3, 1e30, 0.0)]

routings = pytest.mark.parametrize("changes", ROUTED, ids=named)


def scouted(changes: dict[str, Any]) -> tuple[Any, Scout, Any]:
    """The reference, the scout of it, and pictures."""
    model = random_model(make_config(**changes), dtype=torch.float64)
    return model, Scout(model), random_pixels(model.config, IMAGES)


def alike(walked: Scouted, wanted: Outcome) -> None:
    assert walked.counts.tolist() == [list(trace.counts) for trace in wanted.traces]
    assert walked.depth.tolist() == wanted.depth.tolist()
    assert walked.predictions.tolist() == wanted.logits.argmax(dim=-1).tolist()


@routings
@pytest.mark.parametrize("taus", TAUS, ids=str)
def test_thresholds(changes: dict[str, Any], taus: tuple[float | None, ...]) -> None:
    model, scout, pixels = scouted(changes)
    taus = taus[: model.config.num_steps]
    wanted = model(normalised(model.config, pixels), Routing(thresholds=taus))
    h = scout.start(pixels)
    alike(scout.by_thresholds(h, taus), wanted)
    for step in range(len(taus)):
        facing = torch.cat([trace.decisions[step].router_logits for trace in wanted.traces])
        found = scout.router_logits(scout.onward(h, taus[:step]))
        np.testing.assert_allclose(np.sort(found), facing.sort().values, rtol=0, atol=EXACT)


@routings
@pytest.mark.parametrize("part", [1.0, 0.4])
def test_top_k(changes: dict[str, Any], part: float) -> None:
    model, scout, pixels = scouted(changes)
    capacity = tuple(max(1, int(part * own)) for own in model.config.capacity)
    wanted = model(normalised(model.config, pixels), Routing(capacity=capacity))
    alike(scout.by_top_k(scout.start(pixels), capacity), wanted)


@pytest.mark.parametrize("changes", DEPTHS, ids=named)
def test_depths(changes: dict[str, Any]) -> None:
    model, scout, pixels = scouted(changes)
    wanted = model(normalised(model.config, pixels))
    walked = scout.by_depth(pixels)
    assert walked.counts.tolist() == [list(trace.counts) for trace in wanted.traces]
    assert walked.predictions.tolist() == wanted.logits.argmax(dim=-1).tolist()


@pytest.mark.parametrize("scope", ["active", "all"])
def test_an_image_does_not_depend_on_its_company(scope: str) -> None:
    _, scout, pixels = scouted({"attention_scope": scope})
    taus = (0.1, 0.0, 0.2)
    together = scout.by_thresholds(scout.start(pixels), taus)
    starts = [scout.start(pixels[i : i + 1]) for i in range(IMAGES)]
    alone = [scout.by_thresholds(h, taus) for h in starts]
    assert together.counts.tolist() == [one.counts[0].tolist() for one in alone]
    assert together.predictions.tolist() == [one.predictions[0] for one in alone]
    logits = np.concatenate([scout.router_logits(scout.onward(h, taus[:2])) for h in starts])
    np.testing.assert_allclose(
        np.sort(scout.router_logits(scout.onward(scout.start(pixels), taus[:2]))),
        np.sort(logits),
        rtol=0,
        atol=EXACT,
    )


def test_when_nobody_is_left_there_are_no_logits() -> None:
    _, scout, pixels = scouted({})
    h = scout.start(pixels)
    assert scout.router_logits(scout.onward(h, (1e30,))).size == 0
    assert not scout.by_thresholds(h, (1e30, 0.0, None)).counts.any()


def test_what_was_asked_before_changes_nothing() -> None:
    """Several threads ask one scout at once."""
    _, scout, pixels = scouted({})
    with torch.no_grad():
        h = scout.start(pixels)
        asked = [(0.1, 0.0, 0.2), (None, None, None), (0.4, 0.3, 0.2)] * 8
        wanted = [scout.by_thresholds(h, taus).counts.tolist() for taus in asked]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda taus: scout.by_thresholds(h, taus).counts.tolist(), asked))
    assert found == wanted


def test_counts_are_small() -> None:
    _, scout, pixels = scouted({})
    assert scout.by_thresholds(scout.start(pixels), (0.1, 0.0, 0.2)).counts.dtype == np.uint8


@routings
@pytest.mark.parametrize("taus", TAUS, ids=str)
def test_going_on_from_a_stop_changes_no_bit(changes: dict[str, Any], taus: tuple[float | None, ...]) -> None:
    model, scout, pixels = scouted(changes)
    taus = taus[: model.config.num_steps]
    start = scout.start(pixels)
    whole = scout.by_thresholds(start, taus)
    stopped = start
    for step in range(len(taus)):
        at_once = scout.router_logits(scout.onward(start, taus[:step]))
        stopped = scout.onward(stopped, taus[:step])
        np.testing.assert_array_equal(scout.router_logits(stopped), at_once)
        other = (*taus[:step], *[0.05] * (len(taus) - step))
        assert_same(scout.by_thresholds(stopped, other), scout.by_thresholds(start, other))
        assert_same(scout.by_thresholds(stopped, taus), whole)  # the other thresholds changed no state


def assert_same(one: Scouted, other: Scouted) -> None:
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
