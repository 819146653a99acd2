"""Register tokens: beside the patches in every layer, never read, never counted as patches."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import answer, run
from oracle import Oracle
from tiny_models import EXACT, make_config, make_fields, normalised, own_bucket, random_model, random_pixels
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.errors import ConfigError
from morvit_deploy.graph.baselines import build_graph
from morvit_deploy.graph.style.styles import Options, style_for_batch
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.inspecting.anatomy import mac_counts
from morvit_deploy.model.choices import Variant
from morvit_deploy.model.config import MAX_REGISTERS, Config, parse_config
from morvit_deploy.model.macs import dense_macs
from morvit_deploy.model.plan import own_plan

SHARINGS = ("none", "cycle", "middle_cycle")
VARIANTS: tuple[Variant, ...] = ("unrolled", "masked")  # the third is of routed models


def registered(number: int = 3, sharing: str = "cycle") -> Config:
    return make_config(routing="none", sharing=sharing, register_tokens=number)


def test_the_field_is_optional_and_written_only_where_it_says_something() -> None:
    assert registered(0) == make_config(routing="none", sharing="cycle")
    assert "register_tokens" not in json.loads(registered(0).to_json())
    assert parse_config(registered(3).to_json()) == registered(3)
    assert (registered(3).num_patches, registered(3).num_tokens) == (16, 20)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"register_tokens": -1, "routing": "none"}, ["register_tokens", "got -1"]),
        ({"register_tokens": MAX_REGISTERS + 1, "routing": "none"}, ["register_tokens", f"got {MAX_REGISTERS + 1}"]),
        ({"register_tokens": 1.0, "routing": "none"}, ["register_tokens", "got 1.0"]),
        ({"register_tokens": None, "routing": "none"}, ["register_tokens", "got None"]),
        ({"register_tokens": 2}, ["register_tokens: got 2, expected 0 with routing 'expert_choice'"]),
        ({"register_tokens": 2, "routing": "token_choice"}, ["expected 0 with routing 'token_choice'"]),
    ],
    ids=["negative", "too many", "no whole number", "null", "expert_choice", "token_choice"],
)  # fmt: skip  # a line each
def test_impossible_registers_are_explained(changes: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(json.dumps(make_fields(**changes)))
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_reference_equals_the_second_statement(sharing: str) -> None:
    config = registered(sharing=sharing)
    model = random_model(config, seed=3, dtype=torch.float64)
    images = normalised(config, random_pixels(config, 2))
    outcome = model(images)
    for image, logits, depth in zip(images, outcome.logits, outcome.depth, strict=True):
        expected, steps = Oracle(model)(image.numpy())
        assert (logits - torch.from_numpy(expected)).abs().max() <= EXACT
        assert depth.tolist() == steps and len(steps) == config.num_patches


def test_registers_change_the_answer() -> None:
    config = registered()
    model = random_model(config, dtype=torch.float64)
    images = normalised(config, random_pixels(config, 1))
    before = model(images).logits
    model.register_tokens.mul_(2)
    assert (model(images).logits - before).abs().max() > 1e-3


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("number", [1, 4])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_the_static_graph_equals_the_reference(sharing: str, number: int, batch: int, fold: bool) -> None:
    config = registered(number, sharing)
    model = random_model(config, dtype=torch.float64)
    pixels = random_pixels(config, batch)
    outcome = model(normalised(config, pixels))
    graph = unroll(
        model, own_bucket(config), Options(style=style_for_batch(batch), with_depth=True, fold=fold)
    )
    found = graph(torch.from_numpy(pixels))
    assert (found["logits"] - outcome.logits).abs().max() <= EXACT
    assert found["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("sharing", SHARINGS)
def test_macs_are_those_that_torch_counts(sharing: str, variant: Variant) -> None:
    config = registered(sharing=sharing)
    graph = build_graph(variant, random_model(config), own_bucket(config), Options())
    with FlopCounterMode(display=False) as counter:
        graph(torch.zeros(1, config.image_size, config.image_size, 3, dtype=torch.uint8))
    counts = mac_counts(config)
    wanted = counts.static if variant == "unrolled" else dense_macs(config)
    assert counter.get_total_flops() == 2 * wanted
    assert own_plan(config).buckets[0].macs == counts.static
    assert dense_macs(config) > dense_macs(registered(0, sharing))


@pytest.mark.parametrize(
    "options", [{}, {"batch": "dynamic"}, {"form": "masked"}], ids=["one", "dynamic", "masked"]
)
def test_an_export_passes_its_proofs(exported: Callable[..., Path], options: dict[str, Any]) -> None:
    """Which count MACs in the written graph, and compare logits with the reference."""
    bundle = exported(registered(4, "middle_cycle"), **options)
    found = answer("verify", bundle, "--checkpoint", bundle.parent / "checkpoint")
    assert found["passed"] and found["routing_gap"]["max_abs"] <= EXACT


def test_inspect_tells_of_registers(exported: Callable[..., Path]) -> None:
    checkpoint = exported(registered(4, "middle_cycle")).parent / "checkpoint"
    assert "4 registers" in run("inspect", checkpoint).stdout
    assert answer("inspect", checkpoint)["config"]["register_tokens"] == 4
