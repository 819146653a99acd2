"""Routings that shorten a plain ViT: fewer patch tokens from some of its layers on.

`attentive` (EViT): the attention of CLS selects, between a layer's attention and its MLP. `predicted` (DynamicViT): a
predictor selects, before a layer. Step r is the r-th layer of the field `reduction`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from morvit_deploy.model.routings.counting import GraphShape, attention_macs, block_macs, cls_macs, mlp_macs
from morvit_deploy.model.routings.record import RoutingRecord

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config


def num_reductions(config: Config) -> int:
    """Return the number of layers at which tokens leave."""
    return 0 if config.reduction is None else len(config.reduction.layers)


def fused_tokens(config: Config) -> int:
    """Return how many tokens a step adds: the sum of those that leave, if they are fused."""
    return int(config.reduction is not None and config.reduction.fuse)


def predictor_widths(config: Config) -> tuple[int, ...]:
    """Return the widths of a predictor's second MLP: it reads a token's half, and the half that all tokens share."""
    dim = config.embed_dim
    return dim, dim // 2, dim // 4, 2


def predictor_macs(config: Config, tokens: int) -> int:
    """Return the MACs of a static predictor on this many patch tokens.

    The shared half meets its weight once, and the two outputs are folded into their difference.
    """
    dim, wide, narrow, _ = predictor_widths(config)
    half = dim // 2
    return tokens * (dim * dim + half * wide + wide * narrow + narrow) + (dim - half) * wide


def _attentive_macs(config: Config, graph: GraphShape) -> int:
    """Between attention and MLP the tokens become fewer: CLS's weights are computed for the selection."""
    tokens, total, steps = config.num_tokens, 0, kept_after(config, graph.capacity)
    for layer in range(config.num_layers):
        if layer == config.num_layers - 1 and graph.cls_only:
            return total + cls_macs(config, graph, tokens, tokens)
        total += attention_macs(config, tokens, tokens, tokens)
        kept = steps.get(layer, tokens - 1)
        if kept < tokens - 1:
            leaving = tokens - 1 - kept
            summed = fused_tokens(config) * leaving * (leaving > 1)  # one token is scaled, without a product
            total += (tokens + summed) * config.embed_dim
            tokens = 1 + kept + fused_tokens(config)
        total += mlp_macs(config, tokens)
    return total


def _predicted_macs(config: Config, graph: GraphShape) -> int:
    """Before a layer the predictor runs on all patch tokens, and the layer on those that go on."""
    tokens, total, steps = config.num_tokens, 0, kept_after(config, graph.capacity)
    for layer in range(config.num_layers):
        kept = steps.get(layer, tokens - 1)
        if kept < tokens - 1:
            total += predictor_macs(config, tokens - 1)
            tokens = 1 + kept
        if layer == config.num_layers - 1 and graph.cls_only:
            return total + cls_macs(config, graph, tokens, tokens)
        total += attention_macs(config, tokens, tokens, tokens) + mlp_macs(config, tokens)
    return total


def _masked_attentive_macs(config: Config) -> int:
    """Every layer runs all tokens, and those that steps append."""
    tokens, total, held = config.num_tokens, 0, config.num_patches
    steps = kept_after(config, config.capacity or ())
    for layer in range(config.num_layers):
        total += attention_macs(config, tokens, tokens, tokens)
        kept = steps.get(layer, held)
        if kept < held:
            total += tokens * config.embed_dim * (1 + fused_tokens(config))
            tokens, held = tokens + fused_tokens(config), kept + fused_tokens(config)
        total += mlp_macs(config, tokens)
    return total


def _masked_predicted_macs(config: Config) -> int:
    held, total = config.num_patches, config.num_layers * block_macs(config, *(config.num_tokens,) * 3)
    for kept in config.capacity or ():
        total += (kept < held) * predictor_macs(config, config.num_patches)
        held = kept
    return total


def kept_after(config: Config, capacity: tuple[int, ...]) -> dict[int, int]:
    """Return how many patch tokens go on at each layer where some may leave."""
    assert config.reduction is not None
    return dict(zip(config.reduction.layers, capacity, strict=True))


def _selection_macs(config: Config, graph: GraphShape) -> int:
    """One-hot rows multiply the states and, for depths, the token numbers; fused tokens are weighted by score."""
    fused, held, total, added = fused_tokens(config), config.num_patches, 0, 0
    for kept in graph.capacity:
        if kept == held:
            continue
        ranked = held if fused or graph.with_depth else kept
        total += (held if fused else kept) * held * config.embed_dim + fused * held * held
        total += graph.with_depth * ranked * held
        held, added = kept + fused, added + 1
    everyone = config.num_patches + fused * added
    return total + graph.with_depth * (added > 0) * everyone**2


def _describe(config: Config, who: str, when: str) -> str:
    assert config.reduction is not None
    kept = ", ".join(map(str, config.capacity or ()))
    layers = ", ".join(map(str, config.reduction.layers))
    fused = "; those that leave go on as one fused token" if config.reduction.fuse else ""
    return f"{who}: {kept} of {config.num_patches} patch tokens go on {when} layers {layers} (from 0){fused}"


PLAIN_VIT = {
    "sharing": "none", "router": None, "gate": "hard", "attention_scope": "active", "thresholds": None,
    "cls_token": True, "pooling": "cls",
}  # fmt: skip  # fields of a plain ViT that can be shortened
WHY_PLAIN = ", which shortens a plain ViT"
_WHY_ONE = "the number of tokens that leave is part of the trained model and the same for every image"

ATTENTIVE = RoutingRecord(
    name="attentive",
    method="EViT",
    modes=("topk",),
    describe=lambda config: _describe(config, "attention of CLS (EViT)", "in"),
    macs=_attentive_macs,
    selection_macs=_selection_macs,
    masked_macs=_masked_attentive_macs,
    reads_router=False,
    reduces=True,
    reduction_flags=("fuse",),
    weighs=True,
    fixed=PLAIN_VIT,
    why_fixed=WHY_PLAIN,
    why_one_bucket=_WHY_ONE,
    num_steps=num_reductions,
    num_routers=lambda config: 0,
    added_tokens=fused_tokens,
)
PREDICTED = RoutingRecord(
    name="predicted",
    method="DynamicViT",
    modes=("topk",),
    describe=lambda config: _describe(config, "a predictor (DynamicViT)", "from"),
    macs=_predicted_macs,
    selection_macs=_selection_macs,
    masked_macs=_masked_predicted_macs,
    reads_router=False,
    reduces=True,
    predicts=True,
    last_layer_reduces=True,
    fixed=PLAIN_VIT,
    why_fixed=WHY_PLAIN,
    why_one_bucket=_WHY_ONE,
    num_steps=num_reductions,
    num_routers=num_reductions,
)
