"""The model on batches of images under thresholds that are still being set: router logits, counts, classes.

It is the static graph's own arithmetic, with each step as wide as the batch's neediest image. So calibration costs
what the tokens that run cost, and the logits are those that the exported graph will see.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.graph.expert_choice import ExpertChoice
from morvit_deploy.graph.step import TokenState
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.graph.weights import StaticWeights
from morvit_deploy.model.plan import FULL, Bucket, routed_by
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.routings.counting import routed_steps


@dataclass(frozen=True)
class Scouted:
    """What became of a batch."""

    counts: NDArray[np.uint8 | np.uint16]  # (batch, steps) patch tokens that ran each step
    depth: NDArray[np.uint8]  # (batch, N) steps that each ran
    predictions: NDArray[np.int64]  # (batch,)


class Scout:
    """A model to be calibrated; no fixed capacity. Several threads may use it at once."""

    def __init__(self, model: MoRViT) -> None:
        self.config = model.config
        everyone = (model.config.num_patches,) * model.config.num_steps
        options = Options(with_depth=True, style=STYLES["rows"])
        self.graph = StaticMoRViT(model, Bucket(name=FULL, capacity=everyone, macs=1), options)

    def start(self, pixels: Pixels) -> Tensor:
        """uint8 (batch, height, width, 3) to the states before step 1 (batch, N+1, dim), whatever the thresholds."""
        h: Tensor = self.graph.stem(torch.from_numpy(pixels))
        if self.config.sharing == "middle_cycle":
            h = self.graph.block("first")(h)
        return h

    def router_logits(self, h: Tensor, thresholds: Sequence[float | None]) -> NDArray[np.float32]:
        """The logits (n,) of all tokens that face the router after as many steps as there are thresholds."""
        state = self._under(thresholds).after(h, len(thresholds))
        z = self.graph.router(len(thresholds))(state.h)[..., 1:, 0]
        logits: NDArray[np.float32] = (z if state.runs is None else z[state.runs]).numpy()
        return logits.ravel()

    def by_thresholds(self, h: Tensor, thresholds: Sequence[float | None]) -> Scouted:
        """Every step under its threshold (None: all go on)."""
        steps = self._under(thresholds)
        state = steps.after(h, len(thresholds))
        return self._finished(steps, state, torch.stack(steps.counts_under(len(h), thresholds), dim=1))

    def by_top_k(self, h: Tensor, capacity: tuple[int, ...]) -> Scouted:
        """The paper's percentile: a fixed number at each step."""
        graph = copy.copy(self.graph)
        graph.capacity, graph.routed = capacity, routed_steps(self.config, capacity)
        steps = _WideSteps(graph)
        return self._finished(steps, steps.after(h, len(capacity)), torch.tensor(capacity).expand(len(h), -1))

    def by_depth(self, pixels: Pixels) -> Scouted:
        """Where depth is chosen up front: the tokens' own depths."""
        out: dict[str, Tensor] = {}
        carried = self.graph.begin(torch.from_numpy(pixels), out)
        self.graph.finish(carried, out)
        return self._scouted(self.graph.counts(carried), out["depth"], out["logits"])

    def _under(self, thresholds: Sequence[float | None]) -> _WideSteps:
        """The steps with these thresholds for the first of them; at the others all go on."""
        graph = copy.copy(self.graph)
        graph.thresholds = (*thresholds, *[None] * (self.config.num_steps - len(thresholds)))
        graph.routed = routed_by(self.config, graph.thresholds)
        return _WideSteps(graph)

    def _finished(self, steps: _WideSteps, state: TokenState, counts: Tensor) -> Scouted:
        cls = steps.last(state) if self.config.sharing == "middle_cycle" else state.h
        logits = self.graph.classifier(self.graph.layout.cls(cls))
        return self._scouted(counts, steps.depths(state), logits)

    def _scouted(self, counts: Tensor, depth: Tensor, logits: Tensor) -> Scouted:
        small = counts.numpy().astype(np.min_scalar_type(self.config.num_patches))
        return Scouted(small, depth.numpy().astype(np.uint8), logits.argmax(dim=-1).numpy())


class _WideSteps(ExpertChoice):
    """Expert choice whose steps are, under thresholds, as wide as the batch's neediest image."""

    def __init__(self, graph: StaticWeights) -> None:
        super().__init__(graph)
        self.went: list[Tensor] = []  # (batch,) tokens that went on at each threshold

    def after(self, h: Tensor, steps: int) -> TokenState:
        """The tokens after the first `steps`."""
        state = self.state(h)
        if self.thresholds is not None:
            state.ran = torch.zeros(state.held.shape, dtype=torch.uint8)
        for step in range(steps):
            self.step(step, state, None, {})
        return state

    def width(self, step: int, going: Tensor) -> int:
        self.went.append(going.sum(dim=-1))
        return max(1, int(self.went[-1].max()))  # a graph holds one at least

    def counts_under(self, batch: int, thresholds: Sequence[float | None]) -> list[Tensor]:
        """Tokens that ran each step (batch,): without a threshold, as many as before."""
        went = iter(self.went)
        counts, now = [], torch.full((batch,), self.config.num_patches)
        for threshold in thresholds:
            if threshold is not None:
                now = next(went)
            counts.append(now)
        return counts
