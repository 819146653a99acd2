"""Costs of many schedules at once, against those of one. MACs are whole numbers: equal to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from config_matrix import EXPERT, OPTIONS, TOKEN, named
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import make_config, random_model
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.calibration.buckets.costs import MacCost, MeasuredCost, expand
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs, stem_macs
from morvit_deploy.model.plan import FULL, Bucket, Plan, bucket_macs
from morvit_deploy.model.routings.counting import block_macs

N = 16
EVERY = [*EXPERT, *TOKEN, *OPTIONS]
ROUTED = [changes for changes in EVERY if changes.get("routing") != "token_choice"]
MS = 1e-12  # milliseconds: sums of a few floats


def schedules(steps: int, count: int = 12, least: int = 0) -> np.ndarray[Any, Any]:
    """Random schedules (count, steps), the last full."""
    rows = np.random.default_rng(0).integers(least, N + 1, (count, steps))
    rows[-1] = N
    return -np.sort(-rows, axis=1)


@pytest.mark.parametrize("changes", EVERY, ids=named)
def test_macs_are_those_of_every_bucket(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    steps, cost = config.num_steps, MacCost(config)
    for least, thresholds in ((1, None), (0, (0.0,) * steps), (0, (None, *(0.5,) * (steps - 1)))):
        if thresholds is not None and config.routing == "token_choice":
            continue
        table = schedules(steps, least=least)
        wanted = [bucket_macs(config, tuple(row), thresholds) for row in table.tolist()]
        assert cost.of(table, thresholds).tolist() == wanted
        assert cost.of(table, thresholds).dtype == np.float64
        assert cost.of(table[:1], thresholds).tolist() == wanted[:1]


def stem_graph(config: Config, lead: int) -> Any:
    """A threshold graph whose first routed step is `lead`, or a depth graph."""
    steps, everyone = config.num_steps, (N,) * config.num_steps
    taus = None if config.routing == "token_choice" else (*(None,) * lead, *(0.0,) * (steps - lead))
    bucket = Bucket(name=FULL, capacity=everyone, macs=1, upto=N)
    mode: Any = "depth" if taus is None else "threshold"
    plan = Plan(format="morvit-plan/1", mode=mode, thresholds=taus, buckets=(bucket,))
    return unroll(random_model(config), bucket, Options(), plan)


@pytest.mark.parametrize("changes", EVERY, ids=named)
def test_the_stem_costs_what_is_done_before_the_split(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    for lead in range(1 if config.routing == "token_choice" else config.num_steps):
        graph = stem_graph(config, lead)
        with FlopCounterMode(display=False) as counter:
            graph.begin(torch.zeros(1, 32, 32, 3, dtype=torch.uint8), {})
        assert MacCost(config).stem(lead) == counter.get_total_flops() / 2


def test_the_stem_by_hand() -> None:
    """Patches, first and a router on 17 tokens; a step that is not routed runs the cycle and its gate's router."""
    config = make_config(embed_dim=8, num_heads=2, mlp_dim=12)
    patches, router, block = 16 * 3 * 64 * 8, 17 * 8, block_macs(config, 17, 17, 17)
    assert stem_macs(config) == patches + block + router
    assert stem_macs(config, 1) == patches + 2 * block + 2 * router
    hard = make_config(embed_dim=8, num_heads=2, mlp_dim=12, gate="hard")
    assert stem_macs(hard, 2) == patches + 3 * block + router


@pytest.mark.parametrize("changes", ROUTED, ids=named)
def test_stem_and_trunk_add_up(changes: dict[str, Any]) -> None:
    """What is left of a bucket without its stem is what no bucket can do without."""
    config = make_config(**changes)
    nobody, everyone = (0,) * config.num_steps, (N,) * config.num_steps
    thresholds = (0.0,) * config.num_steps
    stem = MacCost(config).stem(0)
    routed = (True,) * config.num_steps
    least, most = (schedule_macs(config, capacity, routed=routed) for capacity in (nobody, everyone))
    costs = MacCost(config).of(np.array([nobody, everyone]), thresholds)
    assert 0 < stem < costs[0] == least < costs[1] == most


# --- milliseconds

MEASURED = MeasuredCost(held=(0, 4, 16), ms=(1.0, 2.0, 8.0), stem_ms=0.5)


def test_milliseconds_are_interpolated_and_averaged() -> None:
    found = MEASURED.of(np.array([[4, 4], [16, 0], [2, 2], [16, 10]]))
    np.testing.assert_allclose(found, [2.5, 5.0, 2.0, 0.5 + (8 + 5) / 2], atol=MS)
    assert MEASURED.stem(0) == 0.5 and MEASURED.unit == "ms"


def test_a_larger_bucket_is_never_the_cheaper_one() -> None:
    noisy = MeasuredCost((0, 4, 8, 16), (1.0, 3.0, 2.0, 4.0), 0.0)
    np.testing.assert_allclose(noisy.of(np.array([[4], [6], [8], [12]])), [3, 3, 3, 3.5], atol=MS)


def test_steps_before_the_split_are_in_the_stem() -> None:
    late = MeasuredCost((0, 16), (0.0, 16.0), 1.0, lead=1)
    np.testing.assert_allclose(late.of(np.array([[16, 4, 2], [16, 16, 16]])), [4.0, 17.0], atol=MS)


@given(st.lists(st.floats(0.1, 9), min_size=3, max_size=3), st.integers(0, 15))
def test_one_token_more_never_costs_less(ms: list[float], tokens: int) -> None:
    cost = MeasuredCost((0, 4, 16), tuple(ms), 0.2)
    fewer, more = cost.of(np.array([[16, tokens], [16, tokens + 1]]))
    assert fewer <= more + MS


def test_capacities_of_routed_steps_are_held_until_the_next() -> None:
    found = expand(np.array([[7, 2], [9, 9]]), (1, 3), 5, N)
    assert found.tolist() == [[16, 7, 7, 2, 2], [16, 9, 9, 9, 9]]
    assert expand(np.array([[7]]), (0,), 2, N).tolist() == [[7, 7]]
