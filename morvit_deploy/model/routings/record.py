"""The properties of a routing: its steps, routed tokens, capacities, MACs and plan modes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from morvit_deploy.model.routings.counting import masked_macs

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config
    from morvit_deploy.model.routings.counting import GraphShape

Mode = Literal["topk", "threshold", "depth"]


def _num_recursions(config: Config) -> int:
    return config.num_recursions


def _one_each_or_one(config: Config) -> int:
    """One router for each recursion, or a shared one."""
    return 1 if config.router is not None and config.router.shared else config.num_recursions


def _one_logit(config: Config) -> int:
    return 1


def _none(config: Config) -> int:
    return 0


def _unlimited(capacity: tuple[int, ...], config: Config) -> list[str]:
    return []


@dataclass(frozen=True)
class RoutingRecord:
    """One routing. Its torch code is registered by `name` in `reference.FORWARD` and `unroll.STATIC_ROUTINGS`."""

    name: str
    modes: tuple[Mode, ...]  # supported plan modes; the first is the checkpoint's own
    describe: Callable[[Config], str]  # a line for `inspect`
    macs: Callable[[Config, GraphShape], int]  # between patch projection and head, including routers
    selection_macs: Callable[[Config, GraphShape], int]  # of selecting tokens by products with one-hot rows
    masked_macs: Callable[[Config], int] = masked_macs  # the same if every token runs, as training code does
    routes: bool = True  # some tokens leave; otherwise every token runs every step
    reads_router: bool = True  # the field `router` describes the routers
    reduces: bool = False  # a plain ViT whose tokens become fewer at the layers of the field `reduction`
    reduction_flags: tuple[str, ...] = ()  # fields of `reduction` that this routing reads, besides `layers`
    method: str | None = None  # what its own paper calls it, where figures of it are published
    weighs: bool = False  # scores are weights that add up to about 1, so only their ratios say anything
    predicts: bool = False  # the routers are DynamicViT's predictors, which read all patch tokens together
    last_layer_reduces: bool = False  # a token that leaves at the last layer changes the logits
    merges: bool = False  # tokens that leave are averaged into others, and their decisions name which
    nested: bool = True  # a token that leaves at one step skips all later steps
    routes_cls: bool = False  # CLS is routed, and capacities count it
    has_schedule: bool = True  # `capacity` is the number of tokens that run each step
    depth_upfront: bool = False  # each token's depth is chosen before the first layer
    fixed: Mapping[str, Any] = field(default_factory=dict)  # config field -> its only supported value
    why_fixed: str = ""  # appended to that value in the error
    why_one_bucket: str | None = None  # why calibration is not supported; None if it is
    num_steps: Callable[[Config], int] = _num_recursions  # routed steps; a schedule has a number for each
    num_routers: Callable[[Config], int] = _one_each_or_one
    router_width: Callable[[Config], int] = _one_logit  # router logits per token
    # reasons why a schedule, which fits otherwise, is not possible
    schedule_limits: Callable[[tuple[int, ...], Config], list[str]] = _unlimited
    added_tokens: Callable[[Config], int] = _none  # tokens that each step appends to those that go on

    @property
    def own_mode(self) -> Mode:
        """The mode of the plan that needs no calibration."""
        return self.modes[0]

    @property
    def ladder_mode(self) -> Mode:
        """The mode of a plan with several buckets, if the routing supports one."""
        return self.modes[-1]
