"""What one-hot selection costs, by its formula and by what torch counts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from config_matrix import EVERY, OPTIONS, named
from graph_styles import LAYOUTS, SELECTS
from tiny_models import make_config, own_bucket, random_model
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.graph.style.styles import Options, style_of
from morvit_deploy.graph.unroll import StaticMoRViT, unroll
from morvit_deploy.model.choices import Layout, Select
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import selection_macs, stem_macs
from morvit_deploy.model.plan import Bucket, Plan, bucket_macs

LADDERS: list[tuple[dict[str, Any], tuple[float | None, ...]]] = [
    ({"sharing": sharing, "attention_scope": scope, "gate": gate, "cycle_depth": depth}, tau)
    for sharing in ("middle_cycle", "cycle")
    for scope in ("active", "all")
    for gate, depth in (("block", 1), ("delta", 2), ("hard", 2))
    for tau in ((0.1, 0.0, 0.2), (None, -0.2, 0.1), (0.2, None, -0.3))
]


def counted(
    config: Config, bucket: Bucket, plan: Plan | None, layout: Layout, select: Select, depth: bool
) -> int:
    """Multiply-accumulates that torch sees one image pay."""
    graph = unroll(random_model(config), bucket, Options("float", depth, style_of(layout, select)), plan)
    with FlopCounterMode(display=False) as counter:
        graph(torch.zeros(1, 3, config.image_size, config.image_size))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS[:3]], ids=named)
def test_one_bucket(changes: dict[str, Any], layout: Layout, depth: bool) -> None:
    config = make_config(**changes)
    bucket = own_bucket(config)
    gathers, products = (counted(config, bucket, None, layout, way, depth) for way in SELECTS)
    wanted = selection_macs(config, bucket.capacity, None, depth, sorts=False)
    assert gathers == bucket_macs(config, bucket.capacity, None)  # the layout costs nothing
    assert products - gathers == wanted


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("changes", "tau"), LADDERS, ids=str)
def test_under_thresholds(
    changes: dict[str, Any], tau: tuple[float | None, ...], layout: Layout, depth: bool
) -> None:
    config = make_config(**changes)
    first = 16 if tau[0] is None else 9
    plan = threshold_plan(config, tau, [(first, first if tau[1] is None else 5, 2)])
    for bucket in plan.buckets:
        gathers, products = (counted(config, bucket, plan, layout, way, depth) for way in SELECTS)
        assert gathers == bucket.macs
        assert products - gathers == selection_macs(config, bucket.capacity, tau, depth)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sharing", ["none", "cycle", "middle_cycle"])
def test_depths_are_sorted_in_the_stem(sharing: str, layout: Layout) -> None:
    config = make_config(routing="token_choice", sharing=sharing)
    falling = tuple(max(1, 16 - 4 * step) for step in range(config.num_steps))
    plan = depth_plan(config, [falling])
    for bucket in plan.buckets:
        gathers, products = (counted(config, bucket, plan, layout, way, True) for way in SELECTS)
        assert products - gathers == selection_macs(config, bucket.capacity)
    options = Options("float", style=style_of(layout, "onehot"))
    graph = unroll(random_model(config), plan.buckets[0], options, plan)
    with FlopCounterMode(display=False) as counter:
        graph.begin(torch.zeros(1, 3, config.image_size, config.image_size), {})
    assert counter.get_total_flops() == 2 * (stem_macs(config) + selection_macs(config, falling))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_the_last_rewrite(layout: Layout) -> None:
    config = make_config(routing="expert_choice_flat")
    bucket = own_bucket(config)
    flops = []
    for select in SELECTS:
        options = Options("float", style=style_of(layout, select), cls_only=False)
        graph = StaticMoRViT(random_model(config), bucket, options)
        with FlopCounterMode(display=False) as counter:
            graph(torch.zeros(1, 3, config.image_size, config.image_size))
        flops.append(counter.get_total_flops())
    assert flops[1] - flops[0] == 2 * selection_macs(config, bucket.capacity, cls_only=False)
