"""MACs of a block, a router and a recursion, from which each routing computes its own."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from morvit_deploy.model.choices import Output
    from morvit_deploy.model.config import Config


@dataclass(frozen=True)
class GraphShape:
    """Properties of a static graph that its MACs depend on, besides the configuration."""

    capacity: tuple[int, ...]  # tokens held at each step
    cls_only: bool = True  # the last layer computes only CLS
    unformed_keys: bool = True  # and, where that costs less, never forms K and V
    frozen_keys: bool = True  # K and V of tokens that have left are computed once
    routed: tuple[bool, ...] | None = None  # whether each step's router is evaluated; None: as needed
    thresholds: tuple[float | None, ...] | None = None
    with_depth: bool = False
    sorts: bool = True  # a bucket of the plan holds fewer tokens than all
    output: Output = "logits"


def reads_cls_alone(config: Config, output: Output = "logits") -> bool:
    """Return whether the output reads no other token than CLS, so that the last layer need not update the others."""
    return config.pooling == "cls" and output != "tokens"


def block_macs(config: Config, queries: int, projected: int, keys: int) -> int:
    """Return the MACs of a block that updates `queries` tokens, projects K and V of `projected`, attends to `keys`.

    Attention to a single key returns its value, without a product.
    """
    dim = config.embed_dim
    per_query = 2 * dim * dim + 2 * dim * config.mlp_dim  # Q, projection, fc1, fc2
    return queries * per_query + projected * 2 * dim * dim + (keys > 1) * 2 * queries * keys * dim


def leaves_keys_unformed(config: Config) -> bool:
    """Return whether the last layer's K and V cost more than attention to the states themselves (rewrite 6).

    Only for a block that is applied once: elsewhere K and V are formed in any case. The cost is that of all tokens,
    so that the buckets of a plan share the form of the weights.
    """
    tokens, heads, dim = config.num_tokens, config.num_heads, config.embed_dim
    once = config.sharing == "middle_cycle" or config.num_recursions == 1
    return once and heads * (dim + tokens) < tokens * (dim + 1)


def cls_macs(config: Config, graph: GraphShape, projected: int, keys: int) -> int:
    """Return the MACs of the last layer for CLS alone; `projected` and `keys` as for `block_macs`.

    With unformed K and V (rewrite 6) each head multiplies a row by both weights, and attends to `keys` states.
    """
    if not (graph.unformed_keys and leaves_keys_unformed(config)):
        return block_macs(config, 1, projected, keys)
    dim, heads = config.embed_dim, config.num_heads
    attention = 2 * heads * dim * (dim + keys)
    return block_macs(config, 1, projected=0, keys=1) + attention


def router_macs(config: Config) -> int:
    """Return the MACs of one router on one token."""
    if config.router is None:
        return 0
    widths = [config.embed_dim, *config.router.hidden, config.record.router_width(config)]
    return sum(a * b for a, b in pairwise(widths))


def layer_names(config: Config) -> list[str]:
    """Return the checkpoint's block name of each layer, in order of application."""
    cycle = [f"cycle.{i}" for i in range(config.cycle_depth)] * config.num_recursions
    return ["first", *cycle, "last"] if config.sharing == "middle_cycle" else cycle


def routed_steps(config: Config, capacity: tuple[int, ...]) -> tuple[bool, ...]:
    """Return, for each step, whether the router is evaluated: if a token leaves, or if the gate needs the score."""
    everyone = (config.routed_tokens,) * len(capacity)
    before = (config.routed_tokens, *capacity)[: len(capacity)] if config.record.nested else everyone
    return tuple(config.gate != "hard" or kept < held for kept, held in zip(capacity, before, strict=True))


def recursion_macs(config: Config, graph: GraphShape) -> int:
    """Return the MACs of first, the routed steps and last."""
    capacity = graph.capacity
    routed = routed_steps(config, capacity) if graph.routed is None else graph.routed
    tokens = held = config.num_tokens  # `held`: before each step's router
    middle = config.sharing == "middle_cycle"
    everywhere = config.attention_scope == "all"
    total = block_macs(config, tokens, tokens, tokens) if middle else 0
    for step, kept in enumerate(capacity):
        running = kept + tokens - config.routed_tokens  # registers always run, and CLS where it is not routed
        total += held * router_macs(config) if routed[step] else 0
        # tokens that leave at this step: their K and V are computed once and kept
        fresh = ((held if graph.frozen_keys else tokens) - running) if everywhere else 0
        keys = tokens if everywhere else running
        for i in range(config.cycle_depth):
            final = not middle and step == len(capacity) - 1 and i == config.cycle_depth - 1
            if final and graph.cls_only:
                total += cls_macs(config, graph, running + fresh, keys)
            else:
                total += block_macs(config, running, running + fresh, keys)
        held = running if config.record.nested else tokens
    if middle:
        alone = cls_macs(config, graph, tokens, tokens)
        total += alone if graph.cls_only else block_macs(config, tokens, tokens, tokens)
    return total
