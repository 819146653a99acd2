"""The static graph of merged tokens equals the reference in float64, in every style and without each rewrite."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from graph_styles import LAYOUTS, SELECTS
from hypothesis import given
from hypothesis import strategies as st
from merged_models import LAYERS, MERGED, merged_config, merged_named
from tiny_models import EXACT, normalised, own_bucket, random_model, random_pixels
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.graph.style.stems import ConvStem
from morvit_deploy.graph.style.styles import STYLES, Options, style_for_batch, style_of
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.choices import Layout
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs, selection_macs
from morvit_deploy.model.routings.merged import sides

CLEAR = 1e-9  # similarities further apart than this rank alike in any order of float64 sums


def assert_same(config: Config, options: Options, batch: int, seed: int = 0) -> None:
    model = random_model(config, seed, torch.float64)
    pixels = random_pixels(config, batch, seed)
    normal = normalised(config, pixels)
    outcome = model(normal)
    assert min(trace.margin for trace in outcome.traces) > CLEAR
    graph = unroll(model, own_bucket(config), options)
    given = torch.from_numpy(pixels) if options.input == "uint8" else normal
    if options.style.stem is ConvStem and options.input == "uint8":
        given = torch.from_numpy(pixels).double().permute(0, 3, 1, 2) / 256
    answer = graph(given)
    assert (answer["logits"] - outcome.logits).abs().max() <= EXACT
    if options.with_depth:
        assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_equals_the_reference(changes: dict[str, Any], batch: int) -> None:
    assert_same(merged_config(**changes), Options(with_depth=True, style=style_for_batch(batch)), batch)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_every_style(changes: dict[str, Any], name: str) -> None:
    for with_depth in (False, True):
        assert_same(merged_config(**changes), Options("float", with_depth, STYLES[name]), 1, seed=1)


@pytest.mark.parametrize("off", [{"cls_only": False}, {"fold": False}, {"unformed_keys": False}], ids=str)
@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_each_rewrite_may_be_left_out(changes: dict[str, Any], off: dict[str, bool]) -> None:
    assert_same(merged_config(**changes), replace(Options(style=STYLES["rows"]), **off), 2, seed=2)  # type: ignore[arg-type]


@given(data=st.data(), proportional=st.booleans(), seed=st.integers(0, 999))
def test_random_schedules(data: st.DataObject, proportional: bool, seed: int) -> None:
    layers = sorted(data.draw(st.sets(st.integers(0, LAYERS - 2), min_size=1)))
    capacity, held = [], 16
    for _ in layers:
        most = sides(held + 1)[0]
        if most == 0:
            break
        held -= data.draw(st.integers(1, most))
        capacity.append(held)
    reduction = {"layers": layers[: len(capacity)], "proportional": proportional}
    options = Options(with_depth=True, style=STYLES["rows"])
    assert_same(merged_config(reduction=reduction, capacity=capacity), options, 2, seed)


def counted(config: Config, options: Options, batch: int = 1) -> int:
    """Multiply-accumulates that torch sees one image pay."""
    graph = unroll(random_model(config), own_bucket(config), options)
    with FlopCounterMode(display=False) as counter:
        graph(torch.zeros(batch, 3, config.image_size, config.image_size))
    assert counter.get_total_flops() % (2 * batch) == 0
    return counter.get_total_flops() // (2 * batch)


@pytest.mark.parametrize("cls_only", [True, False])
@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_the_graph_does_what_is_counted(changes: dict[str, Any], cls_only: bool) -> None:
    config = merged_config(**changes)
    expected = schedule_macs(config, config.capacity or (), cls_only)
    assert counted(config, Options("float", cls_only=cls_only)) == expected
    assert counted(config, Options("float", cls_only=cls_only, style=STYLES["rows"]), batch=3) == expected


@pytest.mark.parametrize("depth", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_one_hot_selection_costs_what_is_counted(
    changes: dict[str, Any], layout: Layout, depth: bool
) -> None:
    config = merged_config(**changes)
    gathers, products = (counted(config, Options("float", depth, style_of(layout, way))) for way in SELECTS)
    assert gathers == schedule_macs(config, config.capacity or ())
    assert products - gathers == selection_macs(config, config.capacity or (), None, depth)
