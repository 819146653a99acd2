"""Inputs and outputs of the reference: how to route, and the decisions, states, depths and logits it returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from morvit_deploy.model.config import Config

CONSTANT = 0.01  # router logits that differ by less than this share of their size hardly tell tokens apart


@dataclass(frozen=True)
class Decision:
    """A router's decision for one image at one step.

    Token numbers count the routed tokens from 0: the patches, or CLS and the patches if CLS is routed too.
    """

    candidates: Tensor  # (n,) tokens to select from
    kept: Tensor  # (k,) tokens that run the step
    router_logits: Tensor  # (n,), for token_choice (n, layers)
    margin: float  # in router logits: the smallest change that could alter the decision
    wanted: int  # tokens that would run the step without a capacity; for top-k the capacity
    into: Tensor | None = (
        None  # (n,) where tokens merge: the token that each goes on in, itself unless it merges
    )

    @property
    def clearance(self) -> float:
        """The margin divided by the spread of the router logits, their standard deviation.

        Round-off grows with the logits themselves, so the spread counts as at least 1 % of the largest one. Zero for
        a tie, NaN if a logit is.
        """
        z = self.router_logits.double()
        if self.margin == 0 or not z.numel():
            return self.margin
        scale = torch.maximum(z.std(correction=0), CONSTANT * z.abs().max()).item()
        return self.margin / scale if scale else float("inf")


@dataclass
class Trace:
    """The decisions for one image, and all token states after each stage."""

    decisions: list[Decision] = field(default_factory=list)
    states: dict[str, Tensor] = field(default_factory=dict)  # stage -> (N+1, dim), CLS first

    @property
    def margin(self) -> float:
        """The smallest margin of the image's decisions."""
        return min((d.margin for d in self.decisions), default=float("inf"))

    @property
    def clearance(self) -> float:
        """The smallest clearance of the image's decisions."""
        return min((d.clearance for d in self.decisions), default=float("inf"))

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of routed tokens that ran each step."""
        return tuple(len(d.kept) for d in self.decisions)

    @property
    def overflow(self) -> bool:
        """Whether a capacity excluded a token from a step that it was routed to."""
        return any(d.wanted > len(d.kept) for d in self.decisions)


@dataclass(frozen=True)
class Routing:
    """How to select tokens.

    expert_choice: with `thresholds`, a token continues if its router logit reaches the step's threshold (None: all
    continue), so the number of tokens depends on the image (paper §5.3). With `capacity`, at most that many tokens
    continue, those with the highest logits.
    expert_choice_flat: `capacity` only.
    token_choice: with `capacity`, at most that many of the tokens that are deep enough run a layer: the deepest, and
    on a tie the first.

    With `shuffle`, as many tokens run each step, but which of the patch tokens is random: a baseline for the routers.
    """

    thresholds: Sequence[float | None] | None = None
    capacity: Sequence[int] | None = None
    shuffle: torch.Generator | None = None

    @classmethod
    def of(cls, config: Config) -> Routing:
        """The routing that a checkpoint was trained with: its own thresholds, or its schedule."""
        return cls(config.thresholds, config.schedule)


@dataclass(frozen=True)
class Outcome:
    """The reference's results for a batch."""

    logits: Tensor  # (batch, classes)
    depth: Tensor  # (batch, N) steps that each patch token ran
    traces: list[Trace]
    vectors: Tensor | None = None  # features (batch, dim) or tokens (batch, N, dim), if they were asked for

    @property
    def answer(self) -> Tensor:
        """What was asked for, a row for each image: (batch, numbers)."""
        return self.logits if self.vectors is None else self.vectors.flatten(1)

    def replaced(self, images: Sequence[int], others: Outcome) -> Outcome:
        """The same with the results of some images taken from `others`, which has them in this order."""
        places = torch.tensor(images)
        traces = dict(zip(images, others.traces, strict=True))
        vectors = self.vectors
        if vectors is not None and others.vectors is not None:
            vectors = vectors.index_copy(0, places, others.vectors)
        return Outcome(
            self.logits.index_copy(0, places, others.logits),
            self.depth.index_copy(0, places, others.depth),
            [traces.get(image, trace) for image, trace in enumerate(self.traces)],
            vectors,
        )

    def decided(self) -> list[Outcome]:
        """An outcome for each image, without the states, which take most of the memory."""
        return [
            Outcome(
                self.logits[i : i + 1],
                self.depth[i : i + 1],
                [Trace(trace.decisions)],
                None if self.vectors is None else self.vectors[i : i + 1],
            )
            for i, trace in enumerate(self.traces)
        ]

    @property
    def runs(self) -> Tensor:
        """Which tokens ran each step, bool (steps, batch, tokens): those routed, then those that steps appended."""
        steps, routed = len(self.traces[0].decisions), len(self.traces[0].decisions[0].candidates)
        each = [one.candidates for trace in self.traces for one in trace.decisions]
        tokens = max([routed, *(int(numbers.max()) + 1 for numbers in each if len(numbers))])
        runs = torch.zeros(steps, len(self.traces), tokens, dtype=torch.bool)
        for image, trace in enumerate(self.traces):
            for step, decision in enumerate(trace.decisions):
                runs[step, image, decision.kept] = True
        return runs
