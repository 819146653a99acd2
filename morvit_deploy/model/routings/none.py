"""No routing: a plain ViT, or one with tied layers. Every token runs every layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from morvit_deploy.model.routings.counting import GraphShape, recursion_macs
from morvit_deploy.model.routings.record import RoutingRecord

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config


def _macs(config: Config, graph: GraphShape) -> int:
    """All tokens run, whatever the capacity."""
    everyone = (config.num_patches,) * config.num_recursions
    return recursion_macs(config, replace(graph, capacity=everyone))


NONE = RoutingRecord(
    name="none",
    modes=("topk",),
    describe=lambda config: "none: every token runs every layer",
    macs=_macs,
    selection_macs=lambda config, graph: 0,
    routes=False,
    has_schedule=False,
    fixed={"router": None, "capacity": None, "gate": "hard"},
    why_one_bucket="every token runs every step, so there is nothing to calibrate",
    num_routers=lambda config: 0,
)
