"""Multiply-accumulates of a schedule, counted from the configuration alone (no torch).

A MAC is one multiply and one add of a matrix product: linear layers, the patch projection, the two attention
products, routers and head. What papers on ViTs call FLOPs are these. The exporter counts the written graph
on its own and the two must agree.
"""

from __future__ import annotations

from itertools import pairwise

from morvit_deploy.model.config import Config
from morvit_deploy.model.routings.counting import (
    GraphShape,
    block_macs,
    layer_names,
    routed_steps,
    router_macs,
)


def dense_macs(config: Config) -> int:
    """Every token through every layer, all routers on all tokens: what masking in eager mode costs."""
    tokens = config.num_tokens
    routed = router_macs(config) * tokens
    if config.capacity is not None:
        routed *= sum(routed_steps(config, config.capacity))
    return _ends(config) + config.num_layers * block_macs(config, tokens, tokens, tokens) + routed


def schedule_macs(
    config: Config,
    capacity: tuple[int, ...],
    cls_only: bool = True,
    frozen_keys: bool = True,
    routed: tuple[bool, ...] | None = None,
) -> int:
    """One image through the static graph of `capacity`, after the rewrites (DESIGN: exact rewrites 2–4).

    `capacity` has a number for each step of the routing. With `cls_only` false the last layer is computed for every
    token that the graph holds, as without rewrite 3; with `frozen_keys` false K and V of tokens that have left are
    computed at every step, as without rewrite 4. `routed` says at which steps the router is read, by default where
    someone leaves or the gate needs the score.
    """
    graph = GraphShape(capacity, cls_only=cls_only, frozen_keys=frozen_keys, routed=routed)
    return _ends(config) + config.record.macs(config, graph)


def selection_macs(
    config: Config,
    capacity: tuple[int, ...],
    thresholds: tuple[float | None, ...] | None = None,
    with_depth: bool = False,
    cls_only: bool = True,
    sorts: bool = True,
) -> int:
    """What one image pays besides for selecting tokens by products with one-hot rows; gathers are free.

    A product counts in full, k · n for each number of k among n tokens: the zeros are multiplied too. Where depth is
    chosen up front these are the stem's, if it `sorts`: some bucket of the plan holds fewer tokens than all.
    Otherwise they are the trunk's.
    """
    graph = GraphShape(capacity, cls_only=cls_only, thresholds=thresholds, with_depth=with_depth, sorts=sorts)
    return config.record.selection_macs(config, graph)


def stem_macs(config: Config, lead: int = 0) -> int:
    """One image through what all buckets share: up to the router of step `lead` (from 0), or of the depths."""
    tokens = config.num_patches + 1
    total = _patch_macs(config) + tokens * router_macs(config)
    if config.record.depth_upfront:
        return total
    blocks = lead * config.cycle_depth + (config.sharing == "middle_cycle")
    gates = lead * tokens * router_macs(config) if config.gate != "hard" else 0
    return total + blocks * block_macs(config, tokens, tokens, tokens) + gates


def _ends(config: Config) -> int:
    """Patch projection and head."""
    widths = [config.embed_dim, *config.head_hidden, config.num_classes]
    head = sum(a * b for a, b in pairwise(widths))
    return _patch_macs(config) + head


def _patch_macs(config: Config) -> int:
    return config.num_patches * config.in_channels * config.patch_size**2 * config.embed_dim


def last_step_is_cls_alone(config: Config) -> bool:
    """Is nothing but CLS read after the last step, with every token a key of it, whoever runs the step?"""
    alone = config.sharing != "middle_cycle" and config.cycle_depth == 1
    return alone and config.attention_scope == "all"


def last_step_decides(config: Config) -> bool:
    """Is the last step's router read at all? Not with a hard gate where it does not matter who runs the step."""
    return config.gate != "hard" or not last_step_is_cls_alone(config)


def applications(config: Config) -> dict[str, int]:
    """How often each unique block is applied."""
    names = layer_names(config)
    return {name: names.count(name) for name in dict.fromkeys(names)}
