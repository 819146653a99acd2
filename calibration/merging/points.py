"""What merging costs and changes: a schedule, its MACs, and how far the results move. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import PlanError
from morvit_deploy.model.answers.heads import SIGMOID, probabilities
from morvit_deploy.model.config import Config
from morvit_deploy.model.merges.schedules import MergeSchedule, merged_config, spread
from morvit_deploy.model.plan import bucket_macs

TINY = 1e-12  # a probability of zero would have an infinite logarithm


@dataclass(frozen=True)
class MergePoint:
    """A schedule, with what it does on the images."""

    kind: str  # that of its family, or "searched"
    schedule: MergeSchedule
    macs: int
    agreement: float  # share of the images with the unmerged model's decision
    divergence: float  # mean Kullback-Leibler divergence from its probabilities, in nats
    top1: float | None  # with labels

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "kind": self.kind, "merges": list(self.schedule.merges), "proportional": self.schedule.proportional,
            "macs": self.macs, "agreement": self.agreement, "divergence": self.divergence, "top1": self.top1,
        }  # fmt: skip


def merged_macs(config: Config, schedule: MergeSchedule) -> int:
    """Return the MACs of one image of a plain ViT with these merges."""
    merged = merged_config(config, schedule)
    assert merged.capacity is not None
    return bucket_macs(merged, merged.capacity, None)


def divergence(expected: NDArray[Any], actual: NDArray[Any], activation: str) -> NDArray[np.float64]:
    """Return the Kullback-Leibler divergence of each image (images,) from logits (images, classes).

    Of a sigmoid head it is the sum over the classes, each of which is a decision by itself.
    """
    p, q = (np.clip(probabilities(logits, activation), TINY, 1.0) for logits in (expected, actual))
    nats = p * np.log(p / q)
    if activation == SIGMOID:
        not_p, not_q = np.clip(1 - p, TINY, 1.0), np.clip(1 - q, TINY, 1.0)
        nats = nats + not_p * np.log(not_p / not_q)
    total: NDArray[np.float64] = nats.sum(axis=-1)
    return total


def within(
    config: Config, weights: tuple[float, ...], budget: float, *, proportional: bool
) -> MergeSchedule | None:
    """Return the schedule with these weights that merges fewest tokens within a budget of MACs, or None."""
    for total in range(1, config.num_patches):
        merges = spread(config, total, weights)
        if sum(merges) < total:
            return None
        schedule = MergeSchedule(merges=merges, proportional=proportional)
        if merged_macs(config, schedule) <= budget:
            return schedule
    return None


def least_macs(config: Config, weights: tuple[float, ...]) -> int:
    """Return the MACs if as many tokens merge as can."""
    merges = spread(config, config.num_patches, weights)
    return merged_macs(config, MergeSchedule(merges=merges, proportional=False))


def budget_of(budget: float | str, unmerged: int, least: int) -> float:
    """Return a budget in MACs, from a number or a share of the unmerged ViT's as in "0.6x"; or PlanError."""
    text = str(budget).strip().lower()
    relative = text.endswith(("x", "×"))
    try:
        value = float(text.rstrip("x×"))
    except ValueError:
        value = float("nan")
    macs = value * unmerged if relative else value
    if not least <= macs < unmerged:
        raise PlanError(
            f"budget_macs: got {budget!r}, expected {least:,} to {unmerged:,} MACs, or {least / unmerged:.2f}x to 1x "
            "of the unmerged ViT"
        )
    return macs
