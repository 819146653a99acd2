"""Runs a plain ViT with merges on images, in batches, and compares it with the unmerged one."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.calibration.merging.points import MergePoint, divergence, merged_macs
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import StaticMoRViT, unroll
from morvit_deploy.model.answers.heads import same_decisions
from morvit_deploy.model.merges.schedules import MergeSchedule, merged_config
from morvit_deploy.model.merges.tokens import with_schedule
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads

BATCH = 16
OPTIONS = Options(style=STYLES["rows"])  # uint8 images, any batch


class Evaluation:
    """Images uint8 (n, height, width, 3) and the unmerged ViT's logits; labels are class numbers or None."""

    def __init__(self, model: MoRViT, images: Pixels, labels: Sequence[int | None]) -> None:
        self.model, self.config, self.images, self.labels = model, model.config, images, labels
        self.logits = self._run(_static(model))
        first = MergeSchedule(merges=(1,) + (0,) * (self.config.num_layers - 2), proportional=False)
        self.merged = _static(with_schedule(model, first))
        self.count = 0  # schedules that were run

    def measure(self, kind: str, schedule: MergeSchedule) -> MergePoint:
        """Run a schedule on all images."""
        config = merged_config(self.config, schedule)
        assert config.capacity is not None
        graph = copy.copy(self.merged)  # the weights are the same, whatever merges
        graph.config, graph.capacity = config, config.capacity
        logits = self._run(graph)
        self.count += 1
        same = same_decisions(self.logits, logits, self.config.head_activation)
        moved = divergence(self.logits, logits, self.config.head_activation)
        macs = merged_macs(self.config, schedule)
        return MergePoint(kind, schedule, macs, float(same.mean()), float(moved.mean()), self.top1_of(logits))

    def top1_of(self, logits: NDArray[np.float32]) -> float | None:
        """Return the share of labeled images whose best class is their label; None without labels."""
        rows = [row for row, label in enumerate(self.labels) if label is not None]
        if not rows:
            return None
        wanted = np.array([self.labels[row] for row in rows])
        return float((logits[rows].argmax(axis=-1) == wanted).mean())

    def _run(self, graph: StaticMoRViT) -> NDArray[np.float32]:
        starts = range(0, len(self.images), BATCH)
        with torch.inference_mode(), fitting_threads(self.config):
            parts = [graph(torch.from_numpy(self.images[at : at + BATCH]))["logits"].numpy() for at in starts]
        return np.concatenate(parts)


def _static(model: MoRViT) -> StaticMoRViT:
    return unroll(model, own_plan(model.config).buckets[0], OPTIONS)
