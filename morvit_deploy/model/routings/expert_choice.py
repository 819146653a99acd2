"""Expert choice (paper §3.2, §3.4): each step's router keeps the best of the tokens that are still active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from morvit_deploy.model.routings.counting import GraphShape, recursion_macs
from morvit_deploy.model.routings.record import RoutingRecord

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config


def scores_read(config: Config, final: bool, by_threshold: bool, with_depth: bool, cls_only: bool) -> bool:
    """Does anything read the scores of the tokens that a step holds, beyond their order?

    The gate does, and under a threshold whoever must know the pads; a final step of CLS alone may do without.
    """
    alone = final and config.sharing != "middle_cycle" and cls_only
    if not alone:
        return by_threshold or config.gate != "hard"
    return by_threshold and (config.attention_scope == "active" or config.cycle_depth > 1 or with_depth)


def _selection_macs(config: Config, graph: GraphShape) -> int:
    """States, scores and numbers move at each step where someone leaves; depths move back at the end."""
    capacity, by_threshold, with_depth = graph.capacity, graph.thresholds is not None, graph.with_depth
    leavers_read = config.sharing == "middle_cycle" or config.attention_scope == "all"
    total, held = 0, config.num_patches
    given = graph.thresholds or (0.0,) * len(capacity)  # by top-k every step may choose
    for step, (kept, threshold) in enumerate(zip(capacity, given, strict=True), start=1):
        if threshold is None or kept == held:
            continue
        total += (held if leavers_read else kept) * held * config.embed_dim
        final = step == len(capacity)
        total += kept * held * scores_read(config, final, by_threshold, with_depth, graph.cls_only)
        total += held * held * with_depth * (2 if by_threshold else 1)  # numbers, and steps run so far
        held = kept
    moved = held < config.num_patches
    return total + config.num_patches**2 * (with_depth and moved)  # depths in the tokens' own order


def _describe(config: Config) -> str:
    kept = ", ".join(map(str, config.capacity or ()))
    return f"expert choice: of {config.num_patches} patch tokens {kept} go on, step by step"


EXPERT_CHOICE = RoutingRecord(
    name="expert_choice",
    modes=("topk", "threshold"),
    describe=_describe,
    macs=recursion_macs,
    selection_macs=_selection_macs,
)
