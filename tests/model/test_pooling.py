"""A head that reads the mean of the patch tokens, before or after the final norm, instead of CLS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import answer, run
from config_matrix import EVERY, OWNING, REDUCING, named
from oracle import Oracle
from tiny_models import EXACT, make_config, normalised, own_bucket, random_model, random_pixels
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.graph.baselines import build_graph
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.inspecting.anatomy import mac_counts, stages_of
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.macs import schedule_macs

POOLINGS = ("mean", "mean_norm")


def pooled(pooling: str = "mean", **changes: Any) -> Config:
    return make_config(pooling=pooling, **changes)


def test_only_a_checkpoint_that_needs_it_has_the_new_format() -> None:
    config = pooled()
    assert json.loads(config.to_json())["format"] == "morvit/2"
    assert parse_config(config.to_json()) == config
    assert json.loads(make_config().to_json())["format"] == "morvit/1"
    plain = make_config(format="morvit/2")
    assert "pooling" not in plain.to_json() and "pooling" not in plain.model_dump_json()


POOLED = [changes for changes in EVERY if changes not in REDUCING]  # shortened ViTs read CLS


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("changes", [*POOLED, *OWNING], ids=named)
def test_reference_and_static_graph_equal_the_second_statement(changes: dict[str, Any], pooling: str) -> None:
    config = pooled(pooling, **changes)
    model, pixels = random_model(config, seed=3, dtype=torch.float64), random_pixels(config, 2)
    images = normalised(config, pixels)
    outcome = model(images)
    for image, logits in zip(images, outcome.logits, strict=True):
        assert (logits - torch.from_numpy(Oracle(model)(image.numpy())[0])).abs().max() <= EXACT
    graph = unroll(model, own_bucket(config), Options(style=STYLES["rows"], with_depth=True))
    found = graph(torch.from_numpy(pixels))
    assert (found["logits"] - outcome.logits).abs().max() <= EXACT
    assert found["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("style", ["bsd-topk", "bsd-onehot", "bc1s-topk", "bc1s-onehot", "one-image"])
@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("routing", ["expert_choice", "expert_choice_flat", "token_choice", "none"])
def test_every_style_pools_alike(routing: str, pooling: str, style: str) -> None:
    config = pooled(pooling, routing=routing)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    graph = unroll(model, own_bucket(config), Options(input="float", style=STYLES[style]))
    images = normalised(config, pixels)
    assert (graph(images)["logits"] - model(images).logits).abs().max() <= EXACT


@pytest.mark.parametrize("pooling", POOLINGS)
def test_cls_and_registers_are_not_in_the_mean(pooling: str) -> None:
    config = pooled(pooling, routing="none", register_tokens=2)
    model = random_model(config, dtype=torch.float64)
    states = torch.randn(config.num_tokens, config.embed_dim, dtype=torch.float64)
    before = model.pool(states)
    states[[0, -2, -1]] += 100
    assert torch.equal(model.pool(states), before)
    states[1, 0] += 1  # one number: a norm takes away what is added to all of a token
    assert (model.pool(states) - before).abs().max() > 1e-3


def test_the_two_means_differ() -> None:
    models = [random_model(pooled(pooling), dtype=torch.float64) for pooling in POOLINGS]
    images = normalised(pooled(), random_pixels(pooled(), 1))
    before, after = (model(images).logits for model in models)
    assert (before - after).abs().max() > 1e-3


@pytest.mark.parametrize("routing", ["expert_choice", "token_choice", "none"])
def test_macs_count_every_token_of_the_last_block(routing: str) -> None:
    config = pooled(routing=routing)
    bucket = own_bucket(config)
    graph = build_graph("unrolled", random_model(config), bucket, Options())
    with FlopCounterMode(display=False) as counter:
        graph(torch.zeros(1, config.image_size, config.image_size, 3, dtype=torch.uint8))
    assert counter.get_total_flops() == 2 * schedule_macs(config, bucket.capacity)
    by_cls = schedule_macs(make_config(routing=routing), bucket.capacity)
    assert schedule_macs(config, bucket.capacity) > by_cls


def test_the_stages_of_inspect_add_up() -> None:
    stages = stages_of(pooled())
    assert sum(stage.macs for stage in stages) == mac_counts(pooled()).static
    assert stages[-1].name == "last"


def test_the_last_router_decides_where_its_tokens_are_read() -> None:
    """With CLS alone the last router of this model has no effect, and a threshold for it is refused."""
    changes: dict[str, Any] = {
        "sharing": "cycle", "attention_scope": "all", "gate": "hard",
        "thresholds": [0.0, None, 0.1], "capacity": [8, 8, 4],
    }  # fmt: skip
    config = pooled(**changes)
    model, images = random_model(config, dtype=torch.float64), normalised(config, random_pixels(config, 2))
    graph = unroll(model, own_bucket(config), Options(input="float", style=STYLES["rows"]))
    assert (graph(images)["logits"] - model(images).logits).abs().max() <= EXACT


EXPORTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "top-k": ({}, {}),
    "dynamic": ({"sharing": "cycle"}, {"batch": "dynamic", "with_depth": True}),
    "flat": ({"routing": "expert_choice_flat"}, {}),
    "depths": ({"routing": "token_choice"}, {}),
    "masked": ({}, {"form": "masked"}),
    "fp16": ({"routing": "none"}, {"precision": "fp16"}),
    "coreml": ({"routing": "none"}, {"target": "coreml"}),
    "coreai": ({"routing": "none"}, {"target": "coreai"}),
}


@pytest.mark.parametrize(("changes", "options"), EXPORTS.values(), ids=EXPORTS)
def test_an_export_passes_its_proofs(
    changes: dict[str, Any], options: dict[str, Any], exported: Callable[..., Path]
) -> None:
    """Which count MACs in the written graph, and compare logits with the reference."""
    bundle = exported(pooled("mean", **changes), **options)
    found = answer("verify", bundle, "--checkpoint", bundle.parent / "checkpoint")
    assert found["passed"] and found["routing_gap"]["max_abs"] <= EXACT


def test_the_other_mean_is_another_model(exported: Callable[..., Path], tmp_path: Path) -> None:
    """The tensors of both are the same."""
    bundle = exported(pooled("mean", routing="none"))
    path = Path(shutil.copytree(bundle.parent / "checkpoint", tmp_path / "other")) / "config.json"
    path.write_text(path.read_text().replace('"pooling": "mean"', '"pooling": "mean_norm"'))
    result = run("verify", bundle, "--checkpoint", path.parent)
    assert result.exit_code == 2 and "pooling: the bundle has 'mean'" in result.output
