"""Token choice (Edge-RecViT): one router chooses each token's depth; layer s runs the tokens with depth >= s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from morvit_deploy.model.routings.counting import (
    GraphShape,
    block_macs,
    cls_macs,
    layer_names,
    router_macs,
)
from morvit_deploy.model.routings.record import RoutingRecord

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config


def _num_layers(config: Config) -> int:
    return config.num_layers


def _macs(config: Config, graph: GraphShape) -> int:
    """Layer s runs its capacity of tokens; each block computes the keys of a token that has left only once."""
    tokens = config.num_patches + 1
    everywhere = config.attention_scope == "all"
    names = layer_names(config)
    total = tokens * router_macs(config)
    keyed: dict[str, int] = {}  # block -> number of frozen tokens whose keys it has computed
    for layer, (name, kept) in enumerate(zip(names, graph.capacity, strict=True), start=1):
        running = kept + 1
        frozen = tokens - running if everywhere else 0
        fresh = frozen - keyed.get(name, 0)
        keyed[name] = frozen
        if layer == len(names) and graph.cls_only:
            total += cls_macs(config, graph, running + fresh, running + frozen)
        else:
            total += block_macs(config, running, running + fresh, running + frozen)
    return total


def _selection_macs(config: Config, graph: GraphShape) -> int:
    """The stem sorts states and depths by depth if a bucket holds fewer tokens than all."""
    restored = (graph.output == "tokens") * (
        config.embed_dim + 1
    )  # states in their own order, and their numbers
    return graph.sorts * config.num_patches**2 * (config.embed_dim + 1 + restored)


def _describe(config: Config) -> str:
    return f"token choice: one router gives each token a depth of 1 to {config.num_layers} layers"


TOKEN_CHOICE = RoutingRecord(
    name="token_choice",
    modes=("depth",),
    describe=_describe,
    macs=_macs,
    selection_macs=_selection_macs,
    has_schedule=False,
    depth_upfront=True,
    fixed={"capacity": None, "gate": "hard"},
    num_steps=_num_layers,
    num_routers=lambda config: 1,
    router_width=_num_layers,
)
