"""The model during calibration, while thresholds are being determined: router logits, counts, predictions.

It uses the code of the static graph, with each step as wide as the batch requires. So calibration computes only the
tokens that run, and the router logits are those of the exported graph.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morvit_deploy.bundle.answers import check_finite
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.graph.expert_choice import ExpertChoice
from morvit_deploy.graph.step import TokenState
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.graph.weights import StaticWeights
from morvit_deploy.model.answers.heads import decided
from morvit_deploy.model.plan import FULL, Bucket
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.routings.counting import routed_steps
from morvit_deploy.model.routings.schedules import routed_by


@dataclass(frozen=True)
class Scouted:
    """The results of a batch."""

    counts: NDArray[np.uint8 | np.uint16]  # (batch, steps) patch tokens that run each step
    depth: NDArray[np.uint8]  # (batch, N) steps that each token runs
    predictions: NDArray[np.int64]  # (batch,) best classes
    decisions: NDArray[np.int64]  # (batch, …) what the head decides, as `decided` returns it


@dataclass(frozen=True)
class Stopped:
    """A batch that stopped between two steps, from where it goes on with any further thresholds."""

    state: TokenState
    steps: int = 0  # that it has run
    went: tuple[Tensor, ...] = ()  # (batch,) patch tokens that continued at each threshold

    def tensors(self) -> list[Tensor]:
        """Everything that it holds in memory."""
        state = self.state
        single = [
            one for one in (state.h, state.held, state.runs, state.ran, state.overflow) if one is not None
        ]
        keys = [one for pair, _ in state.keyed.values() for one in pair or ()]
        return [*single, *keys, *state.left, *state.gone, *state.gone_ran, *self.went]


class Scout:
    """A model without fixed capacities. It is thread-safe."""

    def __init__(self, model: MoRViT) -> None:
        self.config = model.config
        everyone = (model.config.num_patches,) * model.config.num_steps
        options = Options(with_depth=True, style=STYLES["rows"])
        self.graph = StaticMoRViT(model, Bucket(name=FULL, capacity=everyone, macs=1), options)

    def start(self, pixels: Pixels) -> Stopped:
        """Return pixels uint8 (batch, height, width, 3) before step 1."""
        h: Tensor = self.graph.stem(torch.from_numpy(pixels))
        if self.config.sharing == "middle_cycle":
            h = self.graph.block("first")(h)
        return Stopped(ExpertChoice(self.graph).state(h))

    def onward(self, stopped: Stopped, thresholds: Sequence[float | None]) -> Stopped:
        """Run the steps up to the last given threshold (None: all tokens continue); `stopped` is unchanged."""
        return self._under(thresholds).onward(stopped, len(thresholds))

    def router_logits(self, stopped: Stopped) -> NDArray[np.float32]:
        """Return the router logits (n,) of all candidates at the next step."""
        state = stopped.state
        z = self.graph.router(stopped.steps)(state.h)[..., 1:, 0]
        logits: NDArray[np.float32] = (z if state.runs is None else z[state.runs]).numpy()
        return logits.ravel()

    def by_thresholds(self, stopped: Stopped, thresholds: Sequence[float | None]) -> Scouted:
        """Run every remaining step with its threshold (None: all tokens continue)."""
        steps = self._under(thresholds)
        ended = steps.onward(stopped, len(thresholds))
        counts = _counts_under(ended, thresholds, self.config.num_patches)
        return self._finished(steps, ended.state, torch.stack(counts, dim=1))

    def by_top_k(self, start: Stopped, capacity: tuple[int, ...]) -> Scouted:
        """Run every step with a fixed number of tokens, the paper's percentile."""
        graph = copy.copy(self.graph)
        graph.thresholds = None
        graph.capacity, graph.routed = capacity, routed_steps(self.config, capacity)
        steps = _WideSteps(graph)
        ended = steps.onward(start, len(capacity)).state
        return self._finished(steps, ended, torch.tensor(capacity).expand(len(ended.h), -1))

    def by_depth(self, pixels: Pixels) -> Scouted:
        """Run a model whose depths are chosen up front."""
        out: dict[str, Tensor] = {}
        carried = self.graph.begin(torch.from_numpy(pixels), out)
        self.graph.finish(carried, out)
        return self._scouted(self.graph.counts(carried), out["depth"], out["logits"])

    def _under(self, thresholds: Sequence[float | None]) -> _WideSteps:
        """Return the steps with these thresholds; at later steps all tokens continue."""
        graph = copy.copy(self.graph)
        graph.thresholds = (*thresholds, *[None] * (self.config.num_steps - len(thresholds)))
        graph.routed = routed_by(self.config, graph.thresholds)
        return _WideSteps(graph)

    def _finished(self, steps: _WideSteps, state: TokenState, counts: Tensor) -> Scouted:
        logits = self.graph.classifier(steps.ended(state))
        return self._scouted(counts, steps.depths(state), logits)

    def _scouted(self, counts: Tensor, depth: Tensor, logits: Tensor) -> Scouted:
        check_finite(logits.numpy(), "logits of the calibrated model")
        small = counts.numpy().astype(np.min_scalar_type(self.config.num_patches))
        found = logits.numpy()
        decisions = decided(found, self.config.head_activation)
        return Scouted(small, depth.numpy().astype(np.uint8), found.argmax(axis=-1), decisions)


class _WideSteps(ExpertChoice):
    """Expert choice whose steps hold as many tokens as the batch requires, with thresholds."""

    def __init__(self, graph: StaticWeights) -> None:
        super().__init__(graph)
        self.went: list[Tensor] = []  # (batch,) tokens that continue at each threshold

    def onward(self, stopped: Stopped, steps: int) -> Stopped:
        """Run further steps, until `steps` of them are done."""
        state, self.went = _copied(stopped.state), [*stopped.went]
        if self.thresholds is not None and state.ran is None:
            state.ran = torch.zeros(state.held.shape, dtype=torch.uint8)
        for step in range(stopped.steps, steps):
            self.step(step, state, None, {})
        return Stopped(state, steps, tuple(self.went))

    def width(self, step: int, going: Tensor) -> int:
        self.went.append(going.sum(dim=-1))
        return max(1, int(self.went[-1].max()))  # a graph holds at least one


def _counts_under(ended: Stopped, thresholds: Sequence[float | None], patches: int) -> list[Tensor]:
    """Return the number of tokens that ran each step (batch,); it is unchanged at a step without threshold."""
    went = iter(ended.went)
    counts, now = [], torch.full((len(ended.state.h),), patches)
    for threshold in thresholds:
        if threshold is not None:
            now = next(went)
        counts.append(now)
    return counts


def _copied(state: TokenState) -> TokenState:
    """A state that goes on without changing the given one; a step replaces tensors and extends lists."""
    return replace(
        state, left=[*state.left], gone=[*state.gone], gone_ran=[*state.gone_ran], keyed={**state.keyed}
    )
