"""Each image once more at a smaller budget, and how many tokens the images need: can adaptive depth pay?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.calibration.adaptivity.depth_effect import DepthEffect, depth_effect
from morvit_deploy.calibration.adaptivity.rule import Adaptivity
from morvit_deploy.calibration.adaptivity.spread import Spread, spread_of
from morvit_deploy.calibration.routing.sequence import SCALES
from morvit_deploy.model.answers.heads import by_sign, same_decisions
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import bucket_macs
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Outcome, Routing

SMALLEST = min(SCALES)  # relative to the tokens that an image has as trained; where calibration begins, too


class SmallerBudget:
    """Runs images with fewer tokens in each routed step, and keeps what `Adaptivity` needs of each."""

    def __init__(self, model: MoRViT) -> None:
        self.model, self.config = model, model.config
        self.same: list[bool] = []  # whether the decisions are those of the trained budget
        # right as trained, right with fewer tokens; None: no label
        self.pairs: list[tuple[bool, bool] | None] = []
        self.counts: list[tuple[int, ...]] = []  # tokens that ran each step as trained
        self.first: list[NDArray[np.float64]] = []  # router logits at the first step where tokens leave
        self.fewer = False  # whether an image had fewer tokens

    def add(self, normalised: torch.Tensor, outcome: Outcome, labels: Sequence[int | None]) -> None:
        """Run a batch (images, 3, height, width) that had this outcome as trained."""
        for image, trained, trace, label in zip(
            normalised, outcome.logits, outcome.traces, labels, strict=True
        ):
            capacity = fewer_tokens(trace.counts, self.config)
            self.fewer |= capacity != trace.counts
            (logits,) = self.model(image[None], Routing(capacity=capacity)).logits
            a, b = trained[None].numpy(), logits[None].numpy()
            self.same.append(bool(same_decisions(a, b, self.config.head_activation)[0]))
            known = label is not None and not by_sign(self.config.num_classes, self.config.head_activation)
            self.pairs.append((int(a.argmax()) == label, int(b.argmax()) == label) if known else None)
            self.counts.append(trace.counts)
            leaving = [d for d in trace.decisions if len(d.kept) < len(d.candidates)]
            if leaving:
                self.first.append(leaving[0].router_logits.double().numpy())

    def adaptivity(self, images: Sequence[int]) -> Adaptivity:
        """What these images, by number, say about adaptive depth."""
        record, exact = self.config.record, self.config.ragged
        spread: Spread | None = None
        if exact:
            counts = np.array([self.counts[i] for i in images])
            spread = spread_of(np.maximum(counts, 1), self._macs)  # a graph holds at least one patch token
        elif record.why_one_bucket is None and self.first:
            need = tokens_over_threshold(np.stack([self.first[i] for i in images]), self._first_capacity())
            spread = spread_of(self._schedules(need), self._macs)
        everyone = np.full((1, self.config.num_steps), self.config.num_patches)
        return Adaptivity(
            depth=self._effect(images) if self.fewer else None,
            spread=spread,
            full=float(self._macs(everyone)[0]) if exact else None,
            one_number=record.why_one_bucket is not None,
            estimated=not exact,
        )

    def _effect(self, images: Sequence[int]) -> DepthEffect:
        pairs = [pair for i in images if (pair := self.pairs[i]) is not None]
        return depth_effect(
            SMALLEST, [self.same[i] for i in images], pairs if len(pairs) == len(images) else None
        )

    def _first_capacity(self) -> int:
        return next(n for n in self.counts[0] if n < self.config.num_patches)

    def _schedules(self, need: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the trained schedule, scaled at its routed steps to what each image needs at the first of them."""
        own = np.array(self.counts[0])
        scaled = np.rint(own * (need / self._first_capacity())[:, None]).clip(1, self.config.num_patches)
        return np.where(own == self.config.num_patches, own, scaled).astype(np.int64)

    def _macs(self, schedules: NDArray[np.int64]) -> NDArray[np.float64]:
        each = [bucket_macs(self.config, tuple(row), self.config.thresholds) for row in schedules.tolist()]
        return np.array(each, dtype=np.float64)


def fewer_tokens(counts: tuple[int, ...], config: Config, scale: float = SMALLEST) -> tuple[int, ...]:
    """Return `scale` times as many tokens, at least 1, at each step that some tokens may skip."""
    unrouted = [n == config.routed_tokens for n in counts]
    if config.thresholds is not None:
        unrouted = [threshold is None for threshold in config.thresholds]
    elif config.record.depth_upfront:  # only the first layer runs every token whatever the router says
        unrouted = [step == 0 for step in range(len(counts))]
    return tuple(
        n if everyone else max(1, round(scale * n)) for n, everyone in zip(counts, unrouted, strict=True)
    )


def tokens_over_threshold(logits: NDArray[np.float64], mean: int) -> NDArray[np.int64]:
    """Return how many of the logits (images, tokens) reach the threshold that `mean` tokens per image reach.

    This is the static threshold of the paper's percentile over a batch (§5.3), with all images as the batch.
    """
    threshold = np.sort(logits, axis=None)[::-1][mean * len(logits) - 1]
    counts: NDArray[np.int64] = (logits >= threshold).sum(axis=1)
    return counts
