"""The model on batches of images under thresholds that are still being set: router logits, counts, answers.

It is the static graph's own arithmetic, with each step as wide as the batch's neediest image. So calibration costs
what the tokens that run cost, and the logits are those that the exported graph will see.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from morvit_deploy.ends import Options
from morvit_deploy.macs import routed_steps
from morvit_deploy.model import MoRViT
from morvit_deploy.pixels import Pixels
from morvit_deploy.plan import FULL, Bucket, routed_by
from morvit_deploy.unroll import StaticMoRViT, Walk

Thresholds = Sequence[float | None]


@dataclass(frozen=True)
class Walked:
    """What became of a batch."""

    counts: NDArray[np.uint16]  # (batch, steps) patch tokens that ran each step
    depth: NDArray[np.uint8]  # (batch, N)
    predictions: NDArray[np.int64]  # (batch,)


class Scout(StaticMoRViT):
    """A model to be calibrated; no fixed capacity."""

    def __init__(self, model: MoRViT) -> None:
        everyone = (model.config.num_patches,) * model.config.num_steps
        options = Options(input="uint8", single=False, with_depth=True)
        super().__init__(model, Bucket(name=FULL, capacity=everyone, macs=1), options)
        self.everyone = everyone
        self._going: list[Tensor] = []

    def start(self, pixels: Pixels) -> Tensor:
        """uint8 (batch, height, width, 3) to the states before step 1 (batch, N+1, dim), whatever the thresholds."""
        h = self.stem(torch.from_numpy(pixels))
        return self._block("first")(h) if self.config.sharing == "middle_cycle" else h

    def router_logits(self, h: Tensor, thresholds: Thresholds) -> NDArray[np.float32]:
        """The logits (n,) of all tokens that face the router after as many steps as there are thresholds."""
        walk = self._after(h, thresholds)
        z = self._router(len(thresholds))(walk.h)[..., 1:, 0]
        return z.numpy().ravel() if walk.runs is None else z[walk.runs].numpy()

    def by_thresholds(self, h: Tensor, thresholds: Thresholds) -> Walked:
        """Every step under its threshold (None: all go on)."""
        walk = self._after(h, thresholds)
        held = torch.stack(self._counts(len(h), thresholds), dim=1)
        return self._answer(walk, held)

    def by_top_k(self, h: Tensor, capacity: tuple[int, ...]) -> Walked:
        """The paper's percentile: a fixed number at each step."""
        self.thresholds, self.capacity = None, capacity
        self.routed = routed_steps(self.config, capacity)
        walk = self._walk(h)
        for step in range(len(capacity)):
            self._step(step, walk, None, {})
        return self._answer(walk, torch.tensor(capacity).expand(len(h), -1))

    def by_depth(self, pixels: Pixels) -> Walked:
        """token_choice: the tokens' own depths."""
        out: dict[str, Tensor] = {}
        carried = self.begin(torch.from_numpy(pixels), out)
        self.finish(carried, out)
        return _walked(self.counts(carried), out["depth"], out["logits"])

    def _after(self, h: Tensor, thresholds: Thresholds) -> Walk:
        """The walk after the steps that have a threshold or None."""
        steps = len(self.everyone)
        self.thresholds = (*thresholds, *[None] * (steps - len(thresholds)))
        self.capacity, self.routed = self.everyone, routed_by(self.config, self.thresholds)
        self._going = []
        walk = self._walk(h)
        walk.ran = torch.zeros(walk.held.shape, dtype=torch.uint8)
        for step in range(len(thresholds)):
            self._step(step, walk, None, {})
        return walk

    def _capacity(self, step: int, going: Tensor | None) -> int:
        if going is None:
            return self.capacity[step]
        counts = going.sum(dim=-1)
        self._going.append(counts)
        return int(counts.max())

    def _counts(self, batch: int, thresholds: Thresholds) -> list[Tensor]:
        """Tokens that ran each step (batch,): where nobody is asked, as many as before."""
        asked = iter(self._going)
        counts, now = [], torch.full((batch,), self.config.num_patches)
        for threshold in thresholds:
            now = next(asked, torch.zeros_like(now)) if threshold is not None else now
            counts.append(now)
        return counts

    def _answer(self, walk: Walk, counts: Tensor) -> Walked:
        cls = self._last(walk) if self.config.sharing == "middle_cycle" else walk.h
        return _walked(counts, self._depth_output(walk), self.classifier(cls[..., 0, :]))


def _walked(counts: Tensor, depth: Tensor, logits: Tensor) -> Walked:
    return Walked(
        counts.numpy().astype(np.uint16), depth.numpy().astype(np.uint8), logits.argmax(dim=-1).numpy()
    )
