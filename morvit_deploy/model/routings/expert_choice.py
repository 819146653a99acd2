"""Expert choice: each step's router selects tokens.

`expert_choice` (paper §3.2, §3.4) selects among the tokens that are still active. `expert_choice_flat` selects among
all tokens at every step, including CLS.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from morvit_deploy.model.routings.counting import (
    GraphShape,
    recursion_macs,
    routed_steps,
)
from morvit_deploy.model.routings.record import RoutingRecord
from morvit_deploy.model.routings.schedules import reads_cls_alone

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config


def scores_read(config: Config, final: bool, by_threshold: bool, with_depth: bool, cls_only: bool) -> bool:
    """Whether a step needs the scores of the tokens it holds, beyond their order.

    The gate needs them, and so do thresholds, which mark padding. A final step that updates only CLS may not.
    """
    alone = final and config.sharing != "middle_cycle" and cls_only
    if not alone:
        return by_threshold or config.gate != "hard"
    return by_threshold and (config.attention_scope == "active" or config.cycle_depth > 1 or with_depth)


def _selection_macs(config: Config, graph: GraphShape) -> int:
    """States, scores and token numbers are selected at each step where tokens leave; depths are reordered last."""
    capacity, by_threshold, with_depth = graph.capacity, graph.thresholds is not None, graph.with_depth
    leavers_read = config.sharing == "middle_cycle" or config.attention_scope == "all"
    leavers_read = leavers_read or not reads_cls_alone(config, graph.output)
    numbered = with_depth or graph.output == "tokens"
    total, held = 0, config.num_patches
    given = graph.thresholds or (0.0,) * len(capacity)  # with top-k every step may select
    for step, (kept, threshold) in enumerate(zip(capacity, given, strict=True), start=1):
        if threshold is None or kept == held:
            continue
        total += (held if leavers_read else kept) * held * config.embed_dim
        final = step == len(capacity)
        total += kept * held * scores_read(config, final, by_threshold, with_depth, graph.cls_only)
        total += held * held * (numbered + with_depth * by_threshold)  # token numbers, and steps run so far
        held = kept
    moved = held < config.num_patches
    restored = (
        with_depth + (graph.output == "tokens") * config.embed_dim
    )  # depths and states in their own order
    return total + config.num_patches**2 * restored * moved


def _describe(config: Config) -> str:
    kept = ", ".join(map(str, config.capacity or ()))
    if config.thresholds is not None:
        return (
            "expert choice by the checkpoint's own thresholds: a token continues if its router logit reaches the "
            f"step's; in training {kept} of {config.num_patches} patch tokens did on average"
        )
    return f"expert choice: {kept} of {config.num_patches} patch tokens continue at each step"


def _flat_selection_macs(config: Config, graph: GraphShape) -> int:
    """All states and token numbers are reordered at each routed step; `last` selects CLS."""
    tokens = config.num_tokens
    choosing = sum(routed_steps(config, graph.capacity))
    moved = choosing * tokens**2 * (config.embed_dim + 1 + graph.with_depth)
    read = (
        tokens * config.embed_dim * (2 if graph.cls_only else 1)
    )  # CLS: its state, and the normalised state
    if not reads_cls_alone(config, graph.output):
        read = tokens**2 * config.embed_dim  # all states, in their own order
    return moved + (read if choosing else 0) + tokens**2 * graph.with_depth


def _describe_flat(config: Config) -> str:
    kept = ", ".join(map(str, config.capacity or ()))
    return (
        f"flat expert choice: {kept} of all {config.routed_tokens} tokens, including CLS, run at each step; a token "
        "that skips a step may run a later one"
    )


EXPERT_CHOICE = RoutingRecord(
    name="expert_choice",
    modes=("topk", "threshold"),
    describe=_describe,
    macs=recursion_macs,
    selection_macs=_selection_macs,
)
EXPERT_CHOICE_FLAT = RoutingRecord(
    name="expert_choice_flat",
    modes=("topk",),
    describe=_describe_flat,
    macs=recursion_macs,
    selection_macs=_flat_selection_macs,
    nested=False,
    routes_cls=True,
    fixed={"gate": "hard", "attention_scope": "active", "sharing": "middle_cycle"},
    why_fixed=", the only form that has been trained",
    why_one_bucket="calibration requires patch tokens that leave for good, but with this routing a token that skips "
    "a step may run a later one, and CLS is routed too",
)
