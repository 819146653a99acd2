"""The model on batches of images under thresholds that are still being set: router logits, counts, answers.

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
from morvit_deploy.graph.style.options import Options
from morvit_deploy.graph.style.styles import STYLES
from morvit_deploy.graph.unroll import StaticMoRViT, Walk
from morvit_deploy.model.macs import routed_steps
from morvit_deploy.model.plan import FULL, Bucket, routed_by
from morvit_deploy.model.reference import MoRViT


@dataclass(frozen=True)
class Walked:
    """What became of a batch."""

    counts: NDArray[np.uint8 | np.uint16]  # (batch, steps) patch tokens that ran each step
    depth: NDArray[np.uint8]  # (batch, N) steps that each ran
    predictions: NDArray[np.int64]  # (batch,)


class Scout(StaticMoRViT):
    """A model to be calibrated; no fixed capacity. Several threads may ask it at once."""

    def __init__(self, model: MoRViT) -> None:
        everyone = (model.config.num_patches,) * model.config.num_steps
        options = Options(with_depth=True, style=STYLES["rows"])
        super().__init__(model, Bucket(name=FULL, capacity=everyone, macs=1), options)
        self._went: list[Tensor] = []  # (batch,) tokens that went on at each threshold

    def start(self, pixels: Pixels) -> Tensor:
        """uint8 (batch, height, width, 3) to the states before step 1 (batch, N+1, dim), whatever the thresholds."""
        h = self.stem(torch.from_numpy(pixels))
        return self._block("first")(h) if self.config.sharing == "middle_cycle" else h

    def router_logits(self, h: Tensor, thresholds: Sequence[float | None]) -> NDArray[np.float32]:
        """The logits (n,) of all tokens that face the router after as many steps as there are thresholds."""
        walk = self._under(thresholds)._walked(h, len(thresholds))
        z = self._router(len(thresholds))(walk.h)[..., 1:, 0]
        return z.numpy().ravel() if walk.runs is None else z[walk.runs].numpy()

    def by_thresholds(self, h: Tensor, thresholds: Sequence[float | None]) -> Walked:
        """Every step under its threshold (None: all go on)."""
        scout = self._under(thresholds)
        walk = scout._walked(h, len(thresholds))
        return scout._answer(walk, torch.stack(scout._counts(len(h), thresholds), dim=1))

    def by_top_k(self, h: Tensor, capacity: tuple[int, ...]) -> Walked:
        """The paper's percentile: a fixed number at each step."""
        scout = copy.copy(self)
        scout.capacity, scout.routed = capacity, routed_steps(self.config, capacity)
        return scout._answer(scout._walked(h, len(capacity)), torch.tensor(capacity).expand(len(h), -1))

    def by_depth(self, pixels: Pixels) -> Walked:
        """token_choice: the tokens' own depths."""
        out: dict[str, Tensor] = {}
        carried = self.begin(torch.from_numpy(pixels), out)
        self.finish(carried, out)
        return self._told(self.counts(carried), out["depth"], out["logits"])

    def _under(self, thresholds: Sequence[float | None]) -> Scout:
        """The same weights, with these thresholds for the first steps; at the others all go on."""
        scout = copy.copy(self)
        scout.thresholds = (*thresholds, *[None] * (self.config.num_steps - len(thresholds)))
        scout.routed, scout._went = routed_by(self.config, scout.thresholds), []
        return scout

    def _walked(self, h: Tensor, steps: int) -> Walk:
        """The walk after the first `steps`."""
        walk = self._walk(h)
        if self.thresholds is not None:
            walk.ran = torch.zeros(walk.held.shape, dtype=torch.uint8)
        for step in range(steps):
            self._step(step, walk, None, {})
        return walk

    def _capacity(self, step: int, going: Tensor | None) -> int:
        """As wide as the batch's neediest image; without thresholds, as the schedule says."""
        if going is None:
            return self.capacity[step]
        self._went.append(going.sum(dim=-1))
        return max(1, int(self._went[-1].max()))  # a graph holds one at least

    def _counts(self, batch: int, thresholds: Sequence[float | None]) -> list[Tensor]:
        """Tokens that ran each step (batch,): without a threshold, as many as before."""
        went = iter(self._went)
        counts, now = [], torch.full((batch,), self.config.num_patches)
        for threshold in thresholds:
            if threshold is not None:
                now = next(went)
            counts.append(now)
        return counts

    def _answer(self, walk: Walk, counts: Tensor) -> Walked:
        cls = self._last(walk) if self.config.sharing == "middle_cycle" else walk.h
        return self._told(counts, self._depth_output(walk), self.classifier(self.layout.cls(cls)))

    def _told(self, counts: Tensor, depth: Tensor, logits: Tensor) -> Walked:
        small = counts.numpy().astype(np.min_scalar_type(self.config.num_patches))
        return Walked(small, depth.numpy().astype(np.uint8), logits.argmax(dim=-1).numpy())
