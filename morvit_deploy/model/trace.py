"""What the reference does with an image: how it routes, and the decisions, states, depths and logits it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decision:
    """What one image's router decided at one step.

    Token numbers count those that are routed from 0: the patches, or, where CLS is routed too, CLS and the patches.
    """

    candidates: Tensor  # (n,) tokens that faced the router
    kept: Tensor  # (k,) tokens that run the step
    router_logits: Tensor  # (n,), for token_choice (n, layers)
    margin: float  # in router logits: the least change that could alter the decision
    wanted: int  # tokens that would run the step if the capacity did not bind; for top-k the capacity


@dataclass
class Trace:
    """All that happened to one image: decisions, and every token's state after each stage."""

    decisions: list[Decision] = field(default_factory=list)
    states: dict[str, Tensor] = field(default_factory=dict)  # stage -> (N+1, dim), CLS first

    @property
    def margin(self) -> float:
        """The image's routing margin: the least of its decisions'."""
        return min((d.margin for d in self.decisions), default=float("inf"))

    @property
    def counts(self) -> tuple[int, ...]:
        """Tokens that ran each step, counted as a capacity counts them."""
        return tuple(len(d.kept) for d in self.decisions)

    @property
    def overflow(self) -> bool:
        """Did a capacity keep a token from a step that its router wanted it to run?"""
        return any(d.wanted > len(d.kept) for d in self.decisions)


@dataclass(frozen=True)
class Routing:
    """Which tokens go on, where it is not the checkpoint's own schedule.

    expert_choice: with `thresholds` a token goes on when its router logit reaches its step's (None: all go on), and
    each image has counts of its own (paper §5.3); with `capacity` at most so many, the highest, go on.
    expert_choice_flat: `capacity`, no thresholds.
    token_choice has depths instead of thresholds; with `capacity` the deepest so many, on a tie the first.
    """

    thresholds: Sequence[float | None] | None = None
    capacity: Sequence[int] | None = None


@dataclass(frozen=True)
class Outcome:
    """What the reference returns for a batch."""

    logits: Tensor  # (batch, classes)
    depth: Tensor  # (batch, N) steps that each patch token ran
    traces: list[Trace]

    @property
    def runs(self) -> Tensor:
        """bool (steps, batch, routed tokens): who ran each step, by the routers' decisions."""
        steps, tokens = len(self.traces[0].decisions), len(self.traces[0].decisions[0].candidates)
        runs = torch.zeros(steps, len(self.traces), tokens, dtype=torch.bool)
        for image, trace in enumerate(self.traces):
            for step, decision in enumerate(trace.decisions):
                runs[step, image, decision.kept] = True
        return runs
