"""Static modules below fp32: smoothing is exact, halving leaves routers, norms and the residual stream alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from config_matrix import named
from tiny_models import EXACT, make_config, normalised, own_bucket, random_model, random_pixels

from morvit_deploy.errors import ConfigError
from morvit_deploy.graph.lowering import centre_pixels, smooth, smoothable, to_half
from morvit_deploy.graph.style.blocks import StaticLinear
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import StaticMoRViT, unroll

HALF = 5e-3  # × max(1, max |logit|): some layers of products rounded to 11 bits
MODELS: list[dict[str, Any]] = [
    {},
    {"attention_scope": "all", "gate": "delta"},
    {"sharing": "cycle", "cycle_depth": 2},
    {"routing": "token_choice"},
    {"routing": "none", "head_hidden": [14]},
    {"qkv_bias": False, "activation": "relu"},
]


def static(changes: dict[str, Any], dtype: torch.dtype, **options: Any) -> StaticMoRViT:
    config = make_config(**changes)
    return unroll(
        random_model(config, dtype=dtype), own_bucket(config), Options(style=STYLES["rows"], **options)
    )


def random_exponents(graph: StaticMoRViT) -> dict[str, list[int]]:
    rng = np.random.default_rng(3)
    return {
        place.name: rng.integers(-4, 5, place.written_by[0].shape[-1]).tolist() for place in smoothable(graph)
    }


@pytest.mark.parametrize("changes", MODELS, ids=named)
def test_smoothing_changes_no_logit(changes: dict[str, Any]) -> None:
    graph, config = static(changes, torch.float64), make_config(**changes)
    pixels = torch.from_numpy(random_pixels(config, 3))
    before = graph(pixels)["logits"].clone()
    weights = {name: value.clone() for name, value in graph.state_dict().items()}
    smooth(graph, random_exponents(graph))
    changed = {name for name, value in graph.state_dict().items() if not torch.equal(value, weights[name])}
    assert any("norm1" in name for name in changed) and any("proj" in name for name in changed)
    assert (graph(pixels)["logits"] - before).abs().max() <= EXACT * max(1, before.abs().max())


def test_smoothing_changes_no_bit_of_a_float32_product() -> None:
    """Factors are powers of two: products, unlike norms' sums, are the same bits."""
    graph = static({}, torch.float32)
    block = graph.blocks["first"]
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    before = block.qkv(block.norm1(x)).clone()
    smooth(graph, {"first.norm1": [3, -2] * 8})
    assert torch.equal(block.qkv(block.norm1(x)), before)


@pytest.mark.parametrize("changes", MODELS, ids=named)
def test_centred_pixels_change_no_logit(changes: dict[str, Any]) -> None:
    graph, config = static(changes, torch.float64), make_config(**changes)
    pixels = torch.from_numpy(random_pixels(config, 3))
    before = graph(pixels)["logits"].clone()
    centre_pixels(graph)
    assert graph.stem.centre == 128
    assert (graph(pixels)["logits"] - before).abs().max() <= EXACT * max(1, before.abs().max())


def test_a_shared_block_has_one_vector() -> None:
    names = [place.name for place in smoothable(static({}, torch.float32))]
    assert len(names) == len(set(names)) == 3 * 3 + 1
    assert "cycle.0.norm1" in names, "one for all three steps"


@pytest.mark.parametrize("wrong", [{"cycle.7.norm1": [0] * 16}, {"first.norm1": [0] * 15}], ids=str)
def test_foreign_factors_are_refused(wrong: dict[str, list[int]]) -> None:
    with pytest.raises(ConfigError, match=r"one of first\.norm1"):
        smooth(static({}, torch.float32), wrong)


@pytest.mark.parametrize("changes", MODELS, ids=named)
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_halves_answer_the_same(changes: dict[str, Any], kind: str) -> None:
    config = make_config(**changes)
    graph, whole = (static(changes, torch.float32, input=kind) for _ in range(2))
    to_half(graph)
    pixels = random_pixels(config, 3)
    image = torch.from_numpy(pixels) if kind == "uint8" else normalised(config, pixels).float()
    expected, actual = whole(image), graph(image)
    assert actual["logits"].dtype == torch.float32
    limit = HALF * max(1, float(expected["logits"].abs().max()))
    close = (actual["logits"] - expected["logits"]).abs().amax(dim=1) <= limit
    assert close.float().mean() >= 2 / 3, "an image whose decision lay within the rounding may differ"


def test_what_is_halved_and_what_is_not() -> None:
    graph = static({}, torch.float32)
    to_half(graph)
    kinds = {
        name: module.weight.dtype
        for name, module in graph.named_modules()
        if isinstance(module, StaticLinear)
    }
    assert {kind for name, kind in kinds.items() if name.startswith("routers")} == {torch.float32}
    assert {kind for name, kind in kinds.items() if not name.startswith("routers")} == {torch.float16}
    out = graph(torch.from_numpy(random_pixels(make_config(), 1)))
    for name, value in out.items():
        if value.is_floating_point():
            assert value.dtype == torch.float32, f"{name}: states, router logits and logits stay whole"


def test_pixel_weights_are_no_subnormal_halves() -> None:
    graph = static({}, torch.float32)
    to_half(graph)
    weight = graph.stem.patch.weight
    share = (weight.abs() < torch.finfo(torch.float16).tiny).float().mean()
    assert share < 0.01, "1/255 and 1/std are folded in: unscaled, most would lose digits"
