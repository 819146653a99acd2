"""A run of the demo on scenes, made of given numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from adaptive_plans import threshold_plan
from calibration_setup import calibrated
from numpy.typing import NDArray
from tiny_models import make_config, random_pixels

from morvit_deploy.demo.clock import Timed
from morvit_deploy.demo.examples import ADAPTIVE, DENSE, FIXED
from morvit_deploy.demo.gain import Gain, Way
from morvit_deploy.demo.scenes import Scenes, ScenesRun
from morvit_deploy.timing.result import Ratio

TAUS = (0.0, 0.0, 0.1)
SCENE_CONFIG = make_config(thresholds=TAUS, capacity=(8, 5, 2))
IMAGES = 200
CHEAP, DEAR = 1_500_000, 5_500_000  # MACs of a scene with one digit, and with two
OBJECTS = np.array([1, 1, 1, 2] * (IMAGES // 4))
MEAN = 2_500_000  # of these


def way(name: str, wrong: int, macs: int | NDArray[Any], first: int = 0, scale: float | None = None) -> Way:
    """One that classifies `wrong` images wrongly, from image `first` on."""
    right = np.ones(IMAGES, dtype=bool)
    right[first : first + wrong] = False
    return Way(name, right, np.broadcast_to(np.asarray(macs), IMAGES), "scenes-topk", (8, 5, 2), scale)


def gain(
    fixed: Sequence[tuple[int, int]], wrong: int = 4, dense_wrong: int = 4, dense_macs: int = 10_000_000
) -> Gain:
    """Adaptive routing against top-k schedules, each with the number of its wrong classes and its MACs."""
    adaptive = way("adaptive routing", wrong, np.where(OBJECTS == 1, CHEAP, DEAR))
    ways = [way("top-k", *own, scale=float(number)) for number, own in enumerate(fixed)]
    return Gain(adaptive, way("every token in every step", dense_wrong, dense_macs), ways, OBJECTS)


def scenes_run(*, timed: bool = True, warnings: tuple[str, ...] = ()) -> ScenesRun:
    """Two kinds of scenes in two buckets."""
    random = np.random.default_rng(0)
    plan = threshold_plan(SCENE_CONFIG, TAUS, [(6, 5, 2)], upto=(6,))
    found = gain([(30, 2_000_000), (5, 4_000_000)])
    bucket = OBJECTS - 1
    overflow = (bucket == 1) & (np.arange(IMAGES) % 3 == 0)
    depth = random.integers(0, 4, (IMAGES, SCENE_CONFIG.num_patches)).astype(np.uint8)
    labels = np.zeros(IMAGES, dtype=np.int64)
    classes = np.where(found.adaptive.right, 0, 1)
    pixels = random_pixels(SCENE_CONFIG, IMAGES)
    fitted = np.arange(IMAGES) < 150
    scenes = Scenes(pixels, labels, OBJECTS, classes, depth, bucket, overflow, fitted)
    run = ScenesRun(SCENE_CONFIG, None, replace(calibrated(), plan=plan), {}, scenes, found)
    if timed:
        ms = {ADAPTIVE: 0.5 * OBJECTS, FIXED: np.full(IMAGES, 0.8), DENSE: np.full(IMAGES, 2.0)}
        ratios = {name: Ratio(ADAPTIVE, name, (1.2, 1.3)) for name in (FIXED, DENSE)}
        run.timed = Timed(
            ms, {name: float(own.mean()) for name, own in ms.items()}, ratios, {}, 2, 1, warnings
        )
    return run
