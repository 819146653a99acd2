"""Token merging (ToMe, Bolya et al. 2023): at some layers of any plain ViT, similar tokens become their mean.

Step r is the r-th layer of the field `reduction`. Between its attention and its MLP the tokens are dealt in turn to
two sides, A (CLS first) and B; each token of A but CLS has a best partner in B, and those with the best ones merge.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from morvit_deploy.model.routings.counting import GraphShape, attention_macs, cls_macs, mlp_macs
from morvit_deploy.model.routings.record import RoutingRecord
from morvit_deploy.model.routings.reducing import PLAIN_VIT, WHY_PLAIN, kept_after, num_reductions

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config


def sides(tokens: int) -> tuple[int, int]:
    """Return how many of all tokens, CLS included, may merge into others (A but CLS), and into how many (B)."""
    return (tokens - 1) // 2, tokens // 2


def merges_of(config: Config, capacity: tuple[int, ...]) -> tuple[int, ...]:
    """Return how many tokens merge into others at each step."""
    return tuple(before - after for before, after in pairwise((config.num_patches, *capacity)))


def schedule_limits(capacity: tuple[int, ...], config: Config) -> list[str]:
    """Return where a step merges no token, or more than have a partner."""
    problems = []
    for step, (before, after) in enumerate(pairwise((config.num_patches, *capacity))):
        most = sides(before + 1)[0]
        if not 1 <= before - after <= most:
            problems.append(
                f"capacity[{step}]: got {after} after {before}, expected {before - most} to {before - 1}: at least "
                f"one and at most {most} of {before} patch tokens merge into others, as every second one may"
            )
    return problems


def _merging_macs(config: Config, graph: GraphShape, tokens: int, merged: int) -> int:
    """Similarities of both sides in the width of a head, and the product that adds the merged tokens to B.

    The baseline compares CLS, too, and adds by a scatter.
    """
    rows, partners = sides(tokens)
    compared = (rows + graph.scatters) * partners * (config.embed_dim // config.num_heads)
    multiplies = merged > 1 and not graph.scatters  # one token is scaled, without a product
    return compared + multiplies * merged * partners * config.embed_dim


def _macs(config: Config, graph: GraphShape) -> int:
    tokens, total, steps = config.num_tokens, 0, kept_after(config, graph.capacity)
    for layer in range(config.num_layers):
        if layer == config.num_layers - 1 and graph.cls_only:
            return total + cls_macs(config, graph, tokens, tokens)
        total += attention_macs(config, tokens, tokens, tokens)
        if layer in steps:
            total += _merging_macs(config, graph, tokens, tokens - 1 - steps[layer])
            tokens = 1 + steps[layer]
        total += mlp_macs(config, tokens)
    return total


def _selection_macs(config: Config, graph: GraphShape) -> int:
    """One-hot rows multiply the states of side A, the partners of those that merge, sizes and token numbers."""
    total, tokens = 0, config.num_tokens
    for step, merged in enumerate(merges_of(config, graph.capacity)):
        rows, _ = sides(tokens)
        total += rows**2 * (config.embed_dim + (step > 0) + graph.with_depth) + merged * rows
        tokens -= merged
    return total + graph.with_depth * config.num_patches**2


def _describe(config: Config) -> str:
    assert config.reduction is not None
    merged = ", ".join(map(str, merges_of(config, config.capacity or ())))
    layers = ", ".join(map(str, config.reduction.layers))
    weighted = (
        "; attention counts a merged token as often as it has patches"
        if config.reduction.proportional
        else ""
    )
    return (
        f"token merging (ToMe): {merged} of {config.num_patches} patch tokens merge into others in layers {layers} "
        + (f"(from 0){weighted}")
    )


MERGED = RoutingRecord(
    name="merged",
    method="ToMe",
    modes=("topk",),
    describe=_describe,
    macs=_macs,
    selection_macs=_selection_macs,
    reads_router=False,
    reduces=True,
    reduction_flags=("proportional",),
    merges=True,
    schedule_limits=schedule_limits,
    fixed=PLAIN_VIT,
    why_fixed=WHY_PLAIN,
    why_one_bucket="as many tokens merge in every image; `calibrate` of the unmerged ViT finds how many",
    num_steps=num_reductions,
    num_routers=lambda config: 0,
)
