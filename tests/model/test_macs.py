"""MACs counted from the configuration: the design's numbers, and what torch counts in the static module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from config_matrix import EVERY, EXPERT, MASKABLE, OPTIONS, OWNING, TOKEN, named
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import make_config, own_bucket, random_model
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.graph.baselines import build_graph
from morvit_deploy.graph.style.styles import STYLES, Options, style_for_batch
from morvit_deploy.graph.unroll import StaticMoRViT, unroll_plan
from morvit_deploy.model.choices import Variant
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import (
    applications,
    dense_macs,
    schedule_macs,
)
from morvit_deploy.model.plan import Plan, own_plan
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.routings.counting import block_macs, layer_names
from morvit_deploy.model.routings.schedules import last_step_decides, routed_by

GIGA = 1e9


def counted(graph: StaticMoRViT, batch: int = 1, device: str = "cpu") -> int:
    """MACs of one image, counted by torch while the static module runs."""
    size = graph.config.image_size
    with torch.device(device), FlopCounterMode(display=False) as counter:
        graph(torch.zeros(batch, size, size, 3, dtype=torch.uint8))
    flops = counter.get_total_flops()
    assert flops % (2 * batch) == 0
    return flops // (2 * batch)


def static(config: Config, variant: Variant = "unrolled", **options: Any) -> StaticMoRViT:
    """The tiny static module of a configuration's own schedule."""
    return build_graph(variant, random_model(config), own_bucket(config), Options(**options))


def on_meta(name: str, **options: Any) -> StaticMoRViT:
    """A preset's static graph with shapes but without numbers."""
    config = preset(name)
    with torch.device("meta"):
        return build_graph("unrolled", MoRViT(config), own_plan(config).buckets[0], Options(**options))


@pytest.mark.parametrize("name", ["morvit_b16", "morvit_b16_r5", "vit_b16", "edge_recvit_b16"])
def test_presets_after_the_rewrites(name: str) -> None:
    macs = own_plan(preset(name)).buckets[0].macs
    assert counted(on_meta(name), device="meta") == macs < dense_macs(preset(name))


def test_morvit_b16_keeps_its_bar() -> None:
    macs = own_plan(preset("morvit_b16")).buckets[0].macs
    assert round(macs / GIGA, 3) == 2.668
    assert macs <= 2.67 * GIGA


@pytest.mark.parametrize(
    ("name", "giga"),
    [("morvit_b16", 4.10), ("morvit_b16_mlp_head", 4.10), ("morvit_b16_r5", 4.08), ("vit_b16", 17.56)],
)
def test_presets_with_all_tokens_in_first_and_last(name: str, giga: float) -> None:
    config = preset(name)
    capacity = own_plan(config).buckets[0].capacity
    macs = schedule_macs(config, capacity, cls_only=False)
    assert round(macs / GIGA, 2) == giga
    assert counted(on_meta(name, cls_only=False), device="meta") == macs


def test_vit_b16_is_17_564_giga_and_more_than_six_times_morvit_b16() -> None:
    dense, routed = dense_macs(preset("vit_b16")), own_plan(preset("morvit_b16")).buckets[0].macs
    assert round(dense / GIGA, 3) == 17.564
    assert round(dense / routed, 2) == 6.58


@pytest.mark.parametrize("cls_only", [True, False], ids=["cls only", "all tokens"])
@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS, *OWNING], ids=named)
def test_the_unrolled_graph_does_what_is_counted(changes: dict[str, Any], cls_only: bool) -> None:
    config = make_config(**changes)
    bucket = own_bucket(config)
    routed = None if config.thresholds is None else routed_by(config, config.thresholds)
    expected = schedule_macs(config, bucket.capacity, cls_only=cls_only, routed=routed)
    assert counted(static(config, cls_only=cls_only)) == expected
    assert counted(static(config, cls_only=cls_only, style=STYLES["rows"]), batch=3) == expected


@pytest.mark.parametrize("changes", [*MASKABLE, *OPTIONS, *OWNING], ids=named)
def test_the_masked_graph_is_dense(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    assert counted(static(config, "masked")) == dense_macs(config)


schedules = st.lists(st.integers(1, 16), min_size=1, max_size=6).map(lambda k: tuple(sorted(k, reverse=True)))


@given(
    capacity=schedules,
    sharing=st.sampled_from(["cycle", "middle_cycle"]),
    scope=st.sampled_from(["active", "all"]),
    depth=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 20), max_size=2),
)
def test_random_schedules(
    capacity: tuple[int, ...], sharing: str, scope: str, depth: int, hidden: list[int]
) -> None:
    config = make_config(
        sharing=sharing, attention_scope=scope, cycle_depth=depth, num_recursions=len(capacity),
        capacity=list(capacity), router={"hidden": hidden},
    )  # fmt: skip
    assert counted(static(config)) == schedule_macs(config, capacity)


@given(
    capacity=st.lists(st.integers(1, 17), min_size=1, max_size=6).map(tuple),
    depth=st.integers(1, 3),
    hidden=st.lists(st.integers(1, 20), max_size=2),
)
def test_random_flat_schedules(capacity: tuple[int, ...], depth: int, hidden: list[int]) -> None:
    config = make_config(
        routing="expert_choice_flat", cycle_depth=depth, num_recursions=len(capacity), capacity=list(capacity),
        router={"hidden": hidden},
    )  # fmt: skip
    macs = schedule_macs(config, capacity)
    assert counted(static(config)) == macs < counted(static(config, "masked")) == dense_macs(config)


def test_a_flat_step_by_hand() -> None:
    """CLS is counted; a router that leaves nobody out is not read; a token alone has nothing to attend to."""

    def macs(capacity: int) -> int:
        config = make_config(routing="expert_choice_flat", num_recursions=1, capacity=[capacity])
        return schedule_macs(config, (capacity,)) - schedule_macs(config, ())

    dim, mlp = 16, 24
    each = 4 * dim * dim + 2 * dim * mlp
    assert macs(17) == 17 * each + 2 * 17 * 17 * dim
    assert macs(16) == 17 * dim + 16 * each + 2 * 16 * 16 * dim
    assert macs(1) == 17 * dim + each


@given(capacity=schedules.filter(lambda k: len(k) > 1), tokens=st.integers(0, 15))
def test_smaller_schedules_cost_less(capacity: tuple[int, ...], tokens: int) -> None:
    config = make_config(num_recursions=len(capacity), capacity=list(capacity))
    smaller = tuple(max(1, k - tokens) for k in capacity)
    assert schedule_macs(config, smaller) <= schedule_macs(config, capacity) <= dense_macs(config)


def test_one_block_by_hand() -> None:
    config = make_config(embed_dim=4, num_heads=2, mlp_dim=10)
    q, kv, attention, projection, mlp = 3 * 4 * 4, 5 * 4 * 8, 2 * 3 * 5 * 4, 3 * 4 * 4, 2 * 3 * 4 * 10
    assert block_macs(config, queries=3, projected=5, keys=5) == q + kv + attention + projection + mlp


@pytest.mark.parametrize("scope", ["active", "all"])
def test_token_choice_by_depth(scope: str) -> None:
    """Fewer tokens in later layers cost less; the full ladder is what the static graph does."""
    config = make_config(routing="token_choice", attention_scope=scope)
    full = schedule_macs(config, (16,) * 5)
    assert full == counted(static(config))
    falling = [schedule_macs(config, (16, k, k, k, k)) for k in (16, 8, 4, 1)]
    assert falling == sorted(falling, reverse=True) and len(set(falling)) == 4


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sharing": "middle_cycle", "cycle_depth": 2}, {"first": 1, "cycle.0": 3, "cycle.1": 3, "last": 1}),
        ({"sharing": "cycle"}, {"cycle.0": 3}),
        ({"sharing": "none"}, {"cycle.0": 1, "cycle.1": 1, "cycle.2": 1}),
    ],
    ids=["middle_cycle", "cycle", "none"],
)
def test_applications(changes: dict[str, Any], expected: dict[str, int]) -> None:
    config = make_config(**changes)
    assert applications(config) == expected
    assert len(layer_names(config)) == config.num_layers


def assert_each_bucket_does_its_macs(config: Config, plan: Plan) -> None:
    """For one image, and for each of several in a batch."""
    for batch in (1, 3):
        graphs = unroll_plan(random_model(config), plan, Options(style=style_for_batch(batch)))
        for bucket in plan.buckets:
            assert counted(graphs[bucket.name], batch) == bucket.macs


@pytest.mark.parametrize("changes", EXPERT, ids=named)
@given(data=st.data())
@settings(max_examples=5)
def test_a_threshold_bucket_does_what_its_plan_says(changes: dict[str, Any], data: st.DataObject) -> None:
    config = make_config(**changes)
    taus = data.draw(st.tuples(*[st.sampled_from([None, 0.1])] * config.num_steps))
    held, capacity = 16, []
    for threshold in taus:
        held = held if threshold is None else data.draw(st.integers(1, held))
        capacity.append(held)
    if not last_step_decides(config) and taus[-1] is not None:
        taus, capacity[-1] = (*taus[:-1], None), capacity[-2] if len(capacity) > 1 else 16
    routed = any(threshold is not None for threshold in taus)
    assert_each_bucket_does_its_macs(
        config, threshold_plan(config, taus, [tuple(capacity)] if routed else [])
    )


@pytest.mark.parametrize("changes", TOKEN, ids=named)
@given(data=st.data())
@settings(max_examples=5)
def test_a_depth_bucket_does_what_its_plan_says(changes: dict[str, Any], data: st.DataObject) -> None:
    config = make_config(**changes)
    steps = config.num_steps
    later = data.draw(st.lists(st.integers(1, 16), min_size=steps - 1, max_size=steps - 1))
    plan = depth_plan(config, [(16, *sorted(later, reverse=True))])
    assert_each_bucket_does_its_macs(config, plan)
