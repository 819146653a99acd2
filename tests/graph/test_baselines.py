"""The forms that users would export without this tool compute the same model, at their own price."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from config_matrix import DENSE, EXPERT, FLAT, MASKABLE, OPTIONS, OWNING, TOKEN, named
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import EXACT, make_config, normalised, own_bucket, random_model, random_pixels

from morvit_deploy.errors import TargetError
from morvit_deploy.graph.baselines import build_graph
from morvit_deploy.graph.style.styles import STYLES, Options, style_for_batch
from morvit_deploy.model.choices import Variant
from morvit_deploy.model.config import Config

ROUTED = [changes for changes in OPTIONS if changes.get("routing", "expert_choice") == "expert_choice"]


def assert_same(config: Config, variant: Variant, options: Options, batch: int, seed: int = 0) -> None:
    """The variant's logits, and depths if asked, are the reference's in float64."""
    model = random_model(config, seed, torch.float64)
    pixels = random_pixels(config, batch, seed)
    normal = normalised(config, pixels)
    graph = build_graph(variant, model, own_bucket(config), options)
    answer = graph(torch.from_numpy(pixels) if options.input == "uint8" else normal)
    outcome = model(normal)
    assert (answer["logits"] - outcome.logits).abs().max() <= EXACT
    if options.with_depth:
        assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", [*MASKABLE, *OPTIONS, *OWNING], ids=named)
def test_masked(changes: dict[str, Any], batch: int) -> None:
    options = Options(with_depth=changes.get("routing") != "none", style=style_for_batch(batch))
    assert_same(make_config(**changes), "masked", options, batch)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", [*EXPERT, *FLAT, *ROUTED], ids=named)
def test_gather_scatter(changes: dict[str, Any], batch: int) -> None:
    assert_same(make_config(**changes), "gather_scatter", Options(style=style_for_batch(batch)), batch)


@pytest.mark.parametrize("variant", ["masked", "gather_scatter"])
def test_no_rewrite_makes_a_baseline_cheaper(variant: Variant) -> None:
    config = make_config()
    options = build_graph(variant, random_model(config), own_bucket(config), Options()).options
    assert not options.cls_only and not options.frozen_keys


@pytest.mark.parametrize("variant", ["masked", "gather_scatter"])
@pytest.mark.parametrize("batch", [1, 2])
def test_float_input(variant: Variant, batch: int) -> None:
    assert_same(make_config(), variant, Options(input="float", style=style_for_batch(batch)), batch)


schedules = st.lists(st.integers(1, 16), min_size=1, max_size=4).map(lambda k: sorted(k, reverse=True))


@pytest.mark.parametrize("variant", ["masked", "gather_scatter"])
@given(
    capacity=schedules,
    scope=st.sampled_from(["active", "all"]),
    gate=st.sampled_from(["block", "delta", "hard"]),
    seed=st.integers(0, 999),
)
def test_random_schedules(variant: Variant, capacity: list[int], scope: str, gate: str, seed: int) -> None:
    config = make_config(
        capacity=capacity, num_recursions=len(capacity), attention_scope=scope, gate=gate, cycle_depth=2
    )
    assert_same(config, variant, Options(style=STYLES["rows"]), 2, seed)


@pytest.mark.parametrize("changes", [*TOKEN, *DENSE, *OWNING[:1]], ids=named)
def test_gather_scatter_is_for_schedules(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    with pytest.raises(TargetError, match=f"got routing '{config.routing}'"):
        build_graph("gather_scatter", random_model(config), own_bucket(config), Options())


def test_gather_scatter_answers_no_depth() -> None:
    config = make_config()
    with pytest.raises(TargetError, match="depth output True"):
        build_graph("gather_scatter", random_model(config), own_bucket(config), Options(with_depth=True))
