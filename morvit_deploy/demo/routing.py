"""The scenes by thresholds and by fixed schedules, in the code of the static graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.calibration.routing.scout import Scout, Scouted
from morvit_deploy.calibration.routing.sequence import scaled
from morvit_deploy.demo.gain import Way
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs, stem_macs
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads

# of top-k, relative to the model's own capacity
SCALES = (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.3, 2.6, 3.0)


def macs_of_images(config: Config, plan: Plan, counts: NDArray[Any]) -> NDArray[np.int64]:
    """MACs of each image (images,): of its bucket, and where that overflows also of the trunk of `full`."""
    own = np.array([bucket.macs for bucket in plan.buckets])
    again = own[-1] - stem_macs(config, plan.lead)
    macs: NDArray[np.int64] = own[plan.predicted(counts)] + again * plan.dispatched(counts)[1]
    return macs


@torch.no_grad()
def by_thresholds(model: MoRViT, pixels: Pixels) -> Scouted:
    """Classes, depths and token counts of pictures uint8 (images, height, width, 3) by the model's own thresholds."""
    assert model.config.thresholds is not None
    with fitting_threads(model.config):
        scout = Scout(model)
        return scout.by_thresholds(scout.start(pixels), model.config.thresholds)


def by_scales(checkpoint: str, model: MoRViT, pixels: Pixels, labels: NDArray[np.int64]) -> list[Way]:
    """Top-k at several budgets; equal schedules are taken once."""
    schedules = {scaled(model.config, scale): scale for scale in reversed(SCALES)}
    ways = _by_schedules(model, pixels, labels, [*schedules])
    named = zip(ways, schedules.items(), strict=True)
    return [Way("top-k", *way, checkpoint, schedule, scale) for way, (schedule, scale) in named]


def every_token(checkpoint: str, model: MoRViT, pixels: Pixels, labels: NDArray[np.int64]) -> Way:
    """Every token in every step."""
    schedule = (model.config.num_patches,) * model.config.num_steps
    (way,) = _by_schedules(model, pixels, labels, [schedule])
    return Way("every token in every step", *way, checkpoint, schedule)


@torch.no_grad()
def _by_schedules(
    model: MoRViT, pixels: Pixels, labels: NDArray[np.int64], schedules: Sequence[tuple[int, ...]]
) -> list[tuple[NDArray[np.bool_], NDArray[np.int64]]]:
    """Which pictures are classified right, and their MACs, by schedule."""
    with fitting_threads(model.config):
        scout = Scout(model)
        h = scout.start(pixels)
        found = [scout.by_top_k(h, schedule).predictions for schedule in schedules]
    macs = [np.full(len(labels), schedule_macs(model.config, schedule)) for schedule in schedules]
    return [(classes == labels, own) for classes, own in zip(found, macs, strict=True)]
