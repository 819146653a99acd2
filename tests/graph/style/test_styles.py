"""The styles of a static graph: which there are, and those for Core ML in float64 against the reference."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from config_matrix import EVERY, OPTIONS, OWNING, named
from flat_models import wandering_model
from graph_styles import FUSED, LAYOUTS, MANUAL, SELECTS
from tiny_models import EXACT, make_config, normalised, own_bucket, random_model, random_pixels
from torch import Tensor

from morvit_deploy.errors import ConfigError
from morvit_deploy.graph.style.styles import STYLES, Options, style_for_batch, style_of
from morvit_deploy.graph.unroll import RESULTS, StaticMoRViT, unroll, unroll_plan
from morvit_deploy.model.choices import Attention, Layout, Select
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Routing
from morvit_deploy.verifying.probes import plain

N = 16  # patch tokens of the tiny model
EXPERT: list[dict[str, Any]] = [
    {"sharing": sharing, "attention_scope": scope, "gate": gate, "cycle_depth": depth}
    for sharing in ("middle_cycle", "cycle")
    for scope in ("active", "all")
    for gate, depth in (("block", 1), ("delta", 2), ("hard", 2))
]
TOKEN = [changes for changes in EVERY if changes["routing"] == "token_choice"]
TAUS = [(0.1, 0.0, 0.2), (None, -0.2, 0.1), (0.2, None, -0.3), (1e30, 0.0, 0.1), (-1e30, 0.0, 0.1)]


def as_image(pixels: Any) -> Tensor:
    """Pixels (1, height, width, 3) as an ImageType with scale 1/256 hands them over."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).double() / 256


@pytest.mark.parametrize("port", ["uint8", "float"])
@pytest.mark.parametrize("style", MANUAL)
@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS, *OWNING], ids=named)
def test_equals_the_reference(changes: dict[str, Any], style: str, port: str) -> None:
    config = make_config(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    normal = normalised(config, pixels)
    outcome = model(normal)
    graph = unroll(model, own_bucket(config), Options(port, with_depth=True, style=STYLES[style]))
    answer = graph(as_image(pixels) if port == "uint8" else normal)
    assert answer["logits"].shape == outcome.logits.shape
    assert (answer["logits"] - outcome.logits).abs().max() <= EXACT * max(1, outcome.logits.abs().max())
    assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("style", MANUAL)
@pytest.mark.parametrize("changes", EVERY[::4], ids=named)
def test_probes_are_those_of_rows(changes: dict[str, Any], style: str) -> None:
    config = make_config(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    words: Any = style.split("-")  # layout and select
    ordinary = unroll(model, own_bucket(config), Options())(torch.from_numpy(pixels))
    found = unroll(model, own_bucket(config), Options(style=STYLES[style]))(as_image(pixels))
    assert found.keys() == ordinary.keys()
    for name in found.keys() - set(RESULTS):
        value = plain(name, found[name].numpy(), *words)
        assert value.shape == ordinary[name].shape, name
        assert np.abs(value.astype(float) - ordinary[name].double().numpy()).max() <= EXACT * 100, name


def parts(graph: StaticMoRViT, image: Tensor) -> dict[str, Tensor]:
    """The answer by way of stem and trunk."""
    out: dict[str, Tensor] = {}
    graph.finish(graph.begin(image, out), out)
    return graph.with_batch_axis(out)


def hold(model: MoRViT, plan: Plan, style: str, count: int = 4) -> None:
    """Every image in every bucket as the capped reference, and the count that its bucket is chosen by."""
    config, pixels = model.config, random_pixels(model.config, count)
    options = Options(with_depth=True, style=STYLES[style])
    ordinary = unroll_plan(model, plan, Options())[plan.buckets[0].name]
    for bucket in plan.buckets:
        capped = model(normalised(config, pixels), Routing(plan.thresholds, bucket.capacity))
        graph = unroll(model, bucket, options, plan)
        for i in range(count):
            answer = parts(graph, as_image(pixels[i : i + 1]))
            logits = capped.logits[i : i + 1]
            assert (answer["logits"] - logits).abs().max() <= EXACT * max(1, logits.abs().max())
            if "overflow" in answer:
                assert answer["overflow"].tolist() == [capped.traces[i].overflow]
            if config.routing == "expert_choice":
                assert answer["depth"].tolist() == capped.depth[i : i + 1].tolist()
            wanted = ordinary.counts(ordinary.begin(torch.from_numpy(pixels[i : i + 1]), {}))
            assert graph.counts(graph.begin(as_image(pixels[i : i + 1]), {})).tolist() == wanted.tolist()


@pytest.mark.parametrize("style", MANUAL)
@pytest.mark.parametrize("changes", EXPERT, ids=str)
@pytest.mark.parametrize("tau", TAUS, ids=str)
def test_threshold_buckets(changes: dict[str, Any], tau: tuple[float | None, ...], style: str) -> None:
    first = N if tau[0] is None else 9
    second = first if tau[1] is None else 5
    plan = threshold_plan(make_config(**changes), tau, [(first, second, 2)])
    hold(random_model(make_config(**changes), dtype=torch.float64), plan, style)


@pytest.mark.parametrize("style", MANUAL)
@pytest.mark.parametrize("changes", TOKEN, ids=str)
def test_depth_buckets(changes: dict[str, Any], style: str) -> None:
    config = make_config(**changes)
    falling = tuple(max(1, N - 4 * step) for step in range(config.num_steps))
    model = random_model(config, dtype=torch.float64)
    hold(model, depth_plan(config, [falling]), style)


@pytest.mark.parametrize("style", MANUAL)
@pytest.mark.parametrize("off", ["cls_only", "frozen_keys", "fold"])
@pytest.mark.parametrize("changes", EVERY[::3], ids=named)
def test_each_rewrite_may_be_left_out(changes: dict[str, Any], off: str, style: str) -> None:
    config = make_config(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    options = replace(Options(style=STYLES[style]), **{off: False})  # type: ignore[arg-type]
    answer = unroll(model, own_bucket(config), options)(as_image(pixels))
    assert (answer["logits"] - model(normalised(config, pixels)).logits).abs().max() <= EXACT


@pytest.mark.parametrize("style", FUSED)
@pytest.mark.parametrize("changes", EVERY[::3], ids=named)
def test_the_fused_operator_attends_alike(changes: dict[str, Any], style: str) -> None:
    config = make_config(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    answer = unroll(model, own_bucket(config), Options(style=STYLES[style]))(as_image(pixels))
    assert (answer["logits"] - model(normalised(config, pixels)).logits).abs().max() <= EXACT


@pytest.mark.parametrize("style", MANUAL)
@pytest.mark.parametrize("sharing", ["none", "cycle", "middle_cycle"])
def test_registers(sharing: str, style: str) -> None:
    config = make_config(routing="none", sharing=sharing, register_tokens=3)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    answer = unroll(model, own_bucket(config), Options(style=STYLES[style]))(as_image(pixels))
    assert (answer["logits"] - model(normalised(config, pixels)).logits).abs().max() <= EXACT


@pytest.mark.parametrize("style", MANUAL)
def test_cls_that_sits_a_step_out(style: str) -> None:
    model = wandering_model(torch.float64)
    pixels = random_pixels(model.config, 1)
    graph = unroll(model, own_bucket(model.config), Options(with_depth=True, style=STYLES[style]))
    answer, outcome = graph(as_image(pixels)), model(normalised(model.config, pixels))
    assert (answer["logits"] - outcome.logits).abs().max() <= EXACT
    assert answer["depth"].tolist() == outcome.depth.tolist()


def test_no_graph_of_another_input() -> None:
    with pytest.raises(ConfigError, match=r"static graph: got input 'png', expected uint8 or float"):
        Options("png")


COREML_WORDS = [*product(LAYOUTS, SELECTS, get_args(Attention))]


@pytest.mark.parametrize("words", [words for words in COREML_WORDS if words[::2] == ("bc1s", "fused")])
def test_no_style_where_words_contradict_each_other(words: tuple[Layout, Select, Attention]) -> None:
    with pytest.raises(ConfigError, match=r"static graph: got layout 'bc1s'.*'fused'; expected one of"):
        style_of(*words)


def test_every_style_is_used_by_a_target() -> None:
    """No combination of parts has two names, and each is what some batch size or some words for Core ML ask for."""
    by_batch = [style_for_batch(batch) for batch in (1, 8, "dynamic")]
    by_words = [style_of(*words) for words in COREML_WORDS if words[::2] != ("bc1s", "fused")]
    assert {*by_batch, *by_words} == {*STYLES.values()}
    assert len({replace(style, purpose="") for style in STYLES.values()}) == len(STYLES)
