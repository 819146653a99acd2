"""Flat expert choice: each step's router chooses among all tokens anew, and CLS is one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from morvit_deploy.model.routings.counting import GraphShape, recursion_macs, routed_steps
from morvit_deploy.model.routings.record import RoutingRecord

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config


def _selection_macs(config: Config, graph: GraphShape) -> int:
    """All states and their numbers move at each routed step; `last` finds CLS among them."""
    tokens = config.num_tokens
    choosing = sum(routed_steps(config, graph.capacity))
    moved = choosing * tokens**2 * (config.embed_dim + 1 + graph.with_depth)
    cls = tokens * config.embed_dim * (2 if graph.cls_only else 1)  # its state, and the same normalised
    return moved + (cls if choosing else 0) + tokens**2 * graph.with_depth


def _describe(config: Config) -> str:
    kept = ", ".join(map(str, config.capacity or ()))
    return (
        f"flat expert choice: of all {config.routed_tokens} tokens, CLS among them, {kept} run, step by step; "
        "who sits one out may run a later one"
    )


EXPERT_CHOICE_FLAT = RoutingRecord(
    name="expert_choice_flat",
    modes=("topk",),
    describe=_describe,
    macs=recursion_macs,
    selection_macs=_selection_macs,
    nested=False,
    routes_cls=True,
    fixed={"gate": "hard", "attention_scope": "active", "sharing": "middle_cycle"},
    why_fixed=", the only form that has been trained",
    why_one_bucket="a token that sits a step out may run a later one, and CLS is chosen like any other, "
    "while thresholds and buckets are built on patch tokens that leave for good",
)
