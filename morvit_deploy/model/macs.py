"""Multiply-accumulates (MACs) of a schedule, computed from the configuration. No torch.

A MAC is one multiply and one add of a matrix product: linear layers, the patch projection, the two attention
products, routers and head. Papers on ViTs call these FLOPs. The exporters count the MACs of the written graph
independently, and the two numbers must agree.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from morvit_deploy.model.choices import Output
from morvit_deploy.model.config import Config
from morvit_deploy.model.routings.counting import (
    GraphShape,
    block_macs,
    layer_names,
    router_macs,
)
from morvit_deploy.model.routings.schedules import reads_cls_alone


def dense_macs(config: Config) -> int:
    """Return the MACs of every token in every layer and every router, as in eager code that masks tokens."""
    return _ends(config) + config.record.masked_macs(config)


def schedule_macs(
    config: Config,
    capacity: tuple[int, ...],
    cls_only: bool = True,
    frozen_keys: bool = True,
    routed: tuple[bool, ...] | None = None,
    unformed_keys: bool = True,
    output: Output = "logits",
    scatters: bool = False,
) -> int:
    """Return the MACs of one image in the static graph of `capacity`, which has a number for each step.

    Without `cls_only` (rewrite 3), or if the head reads the mean of the patch tokens, the last layer is computed for
    all tokens in the graph. Without `frozen_keys`
    (rewrite 4) K and V of tokens that have left are recomputed at every step. Without `unformed_keys` (rewrite 6) the
    last layer forms K and V. `routed` is true at steps whose router is evaluated; by default those at which a token
    leaves or the gate needs the score. With another `output` than logits there is no head, and with tokens no rewrite
    3. With `scatters`, tokens merge by a scatter, which has no MACs.
    """
    alone = cls_only and reads_cls_alone(config, output)
    graph = GraphShape(capacity, alone, unformed_keys, frozen_keys, routed, scatters=scatters)
    ends = _ends(config) if output == "logits" else _patch_macs(config)
    return ends + config.record.macs(config, graph)


def selection_macs(
    config: Config,
    capacity: tuple[int, ...],
    thresholds: tuple[float | None, ...] | None = None,
    with_depth: bool = False,
    cls_only: bool = True,
    sorts: bool = True,
    output: Output = "logits",
) -> int:
    """Return the additional MACs of one image if tokens are selected by products with one-hot rows.

    Each product counts in full, including the zeros: k · n to select k of n numbers. With depths chosen up front
    these MACs belong to the stem, and only if it `sorts`, that is, if a bucket of the plan holds fewer tokens than
    all. Otherwise they belong to the trunk.
    """
    alone = cls_only and reads_cls_alone(config, output)
    graph = GraphShape(
        capacity,
        cls_only=alone,
        thresholds=thresholds,
        with_depth=with_depth,
        sorts=sorts,
        output=output,
    )
    return config.record.selection_macs(config, graph)


def stem_macs(config: Config, lead: int = 0) -> int:
    """Return the MACs of the stem that all buckets share: up to the router of step `lead` (from 0) or of depths."""
    tokens = config.num_patches + 1
    total = _patch_macs(config) + tokens * router_macs(config)
    if config.record.depth_upfront:
        return total
    blocks = lead * config.cycle_depth + (config.sharing == "middle_cycle")
    gates = lead * tokens * router_macs(config) if config.gate != "hard" else 0
    return total + blocks * block_macs(config, tokens, tokens, tokens) + gates


def _ends(config: Config) -> int:
    """MACs of the patch projection and the head."""
    widths = [config.embed_dim, *config.head_hidden, config.num_classes]
    head = sum(a * b for a, b in pairwise(widths))
    return _patch_macs(config) + head


def _patch_macs(config: Config) -> int:
    return config.num_patches * config.in_channels * config.patch_size**2 * config.embed_dim


def applications(config: Config) -> dict[str, int]:
    """Return how often each unique block is applied, in order of first use."""
    return dict(Counter(layer_names(config)))
