"""What is particular to one routing: its steps, who is routed, how capacities bind, its MACs and its plans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config
    from morvit_deploy.model.routings.counting import GraphShape

Mode = Literal["topk", "threshold", "depth"]


def _num_recursions(config: Config) -> int:
    return config.num_recursions


def _one_each_or_one(config: Config) -> int:
    """A router for each recursion, or one that all share."""
    return 1 if config.router is not None and config.router.shared else config.num_recursions


def _one_logit(config: Config) -> int:
    return 1


@dataclass(frozen=True)
class RoutingRecord:
    """One routing. The torch side is found by `name`: `reference.FORWARD` and `unroll.STATIC_ROUTINGS`."""

    name: str
    modes: tuple[Mode, ...]  # of plans; the first is the checkpoint's own
    describe: Callable[[Config], str]  # a line for `inspect`
    macs: Callable[[Config, GraphShape], int]  # between patch projection and head, routers included
    selection_macs: Callable[[Config, GraphShape], int]  # of selecting tokens by products with one-hot rows
    routes: bool = True  # are there routers? Else every token runs every step
    nested: bool = True  # is a token that left at one step gone from all later ones?
    routes_cls: bool = False  # does CLS face the router, and does a capacity count it?
    has_schedule: bool = True  # does `capacity` say how many tokens run each step?
    depth_upfront: bool = False  # does each token get its depth before the first layer?
    fixed: Mapping[str, Any] = field(default_factory=dict)  # config field -> the only value it may have
    why_fixed: str = ""  # follows the value in the error
    why_one_bucket: str | None = None  # why there is nothing to calibrate; None where there is
    num_steps: Callable[[Config], int] = _num_recursions  # routed steps: a schedule has a number for each
    num_routers: Callable[[Config], int] = _one_each_or_one
    router_width: Callable[[Config], int] = _one_logit  # router logits of a token

    @property
    def own_mode(self) -> Mode:
        """The mode of the plan that needs no calibration."""
        return self.modes[0]

    @property
    def ladder_mode(self) -> Mode:
        """The mode of a plan with several buckets, where there can be one."""
        return self.modes[-1]
