"""Which tokens run a routed step: the best of each image, or of the whole batch, or those that reach a threshold.

The paper takes the percentile "over all routing scores at a step" (§3.2). Over a batch, the tokens of all images
compete: a full picture gets many, an empty one few. A threshold at inference does the same, image by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

OPEN = float("-inf")  # the threshold of a step that every active token runs


@dataclass(frozen=True)
class Choice:
    """The tokens that run a step, and the router logit that separates them from the others."""

    keep: Tensor  # (batch, n) bool
    threshold: Tensor  # (batch, 1), OPEN where all active tokens are kept; its gradient is that of `neutral`


class Selection(Protocol):
    """Keeps the tokens with the highest scores (batch, n) among those where `active` (batch, n) is true.

    Scores are the router logits z (batch, n), in training with noise.
    """

    def __call__(self, step: int, z: Tensor, scores: Tensor, active: Tensor) -> Choice: ...


@dataclass(frozen=True)
class PerImage:
    """The `capacity[step]` best of each image; on a tie the first."""

    capacity: Sequence[int]
    neutral: bool = False  # whether the threshold's gradient is that of `neutral`

    def __call__(self, step: int, z: Tensor, scores: Tensor, active: Tensor) -> Choice:
        count = self.capacity[step]
        order = scores.masked_fill(~active, OPEN).argsort(dim=1, descending=True, stable=True)
        keep = torch.zeros_like(active).scatter(1, order[:, :count], True) & active
        if count >= z.shape[1]:
            return Choice(keep, z.new_full((len(z), 1), OPEN))
        ranked = z.detach().masked_fill(~active, OPEN).sort(dim=1, descending=True).values
        threshold = ranked[:, count - 1 : count + 1].mean(dim=1, keepdim=True)
        return Choice(keep, neutral(threshold, z, active, dim=1) if self.neutral else threshold)


@dataclass(frozen=True)
class AcrossBatch:
    """The best of the batch, `capacity[step]` an image on average (paper §3.2: P_β over all scores at a step)."""

    capacity: Sequence[float]

    def __call__(self, step: int, z: Tensor, scores: Tensor, active: Tensor) -> Choice:
        ranked = scores[active].sort(descending=True).values
        count = max(1, round(self.capacity[step] * len(scores)))
        if count >= len(ranked):
            return everything(step, z, scores, active)
        threshold = ranked[count - 1 : count + 1].mean().expand(len(scores), 1)
        return Choice((scores >= threshold) & active, neutral(threshold, z, active, dim=(0, 1)))


@dataclass(frozen=True)
class ByThreshold:
    """The tokens whose score reaches the step's threshold, as at inference."""

    thresholds: Sequence[float]

    def __call__(self, step: int, z: Tensor, scores: Tensor, active: Tensor) -> Choice:
        threshold = scores.new_tensor(self.thresholds[step])
        return Choice((scores >= threshold) & active, threshold.expand(len(scores), 1))


class Running:
    """Selects across the batch and keeps running thresholds, as batch norm keeps running means."""

    def __init__(self, capacity: Sequence[float], momentum: float) -> None:
        self.inner, self.momentum = AcrossBatch(capacity), momentum
        self.thresholds: list[float] = []

    def __call__(self, step: int, z: Tensor, scores: Tensor, active: Tensor) -> Choice:
        choice = self.inner(step, z, scores, active)
        now = choice.threshold[0, 0].item()
        if step == len(self.thresholds):
            self.thresholds.append(now)  # the first batch
        before = self.thresholds[step]
        open_step = OPEN in (now, before)  # a mean with -inf would be NaN, which no token reaches
        self.thresholds[step] = OPEN if open_step else before + self.momentum * (now - before)
        return choice


def neutral(threshold: Tensor, z: Tensor, active: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """The threshold (batch, 1), with the gradient of a percentile: it rises with the logits of the tokens near it.

    So the selection's gradient raises some tokens and lowers others. With a constant threshold, all logits rise
    together, which changes no selection, and what routers learn is what all tokens have in common: brightness.
    """
    near = torch.sigmoid(z - threshold).detach()
    weight = near * (1 - near) * active + 1e-9 * active
    centre = (weight * z).sum(dim=dim, keepdim=True) / weight.sum(dim=dim, keepdim=True)
    return threshold + (centre - centre.detach())


def everything(step: int, z: Tensor, scores: Tensor, active: Tensor) -> Choice:
    """Every token in every step."""
    return Choice(active, scores.new_full((len(scores), 1), OPEN))
