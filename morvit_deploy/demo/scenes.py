"""The scenes through every step: adaptive routing against top-k at several budgets and against every token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.images import ImageFolder, open_images
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.demo.clock import Timed, measure_pictures
from morvit_deploy.demo.examples import (
    ADAPTIVE,
    DENSE,
    FIXED,
    SCENES,
    THRESHOLDS,
    TOPK,
    check_scene_models,
)
from morvit_deploy.demo.gain import Gain, Way
from morvit_deploy.demo.objects import read_objects
from morvit_deploy.demo.routing import by_scales, by_thresholds, every_token, macs_of_images
from morvit_deploy.demo.wording import gain_sentences, speed_sentence
from morvit_deploy.errors import ImageError, ParityError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.files import write_text
from morvit_deploy.inspecting.inspection import inspect
from morvit_deploy.inspecting.survey import Survey
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.model.config import Config, load_config
from morvit_deploy.model.plan import Plan, topk_plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.planning.rounds import Calibrated, calibrate
from morvit_deploy.verifying.outcome import Verification

INSPECTED = 16  # pictures that the reference runs one by one
FITTED = 150  # pictures that the buckets are fitted to, of 200: fewer overflow on the others

FLIPS = 0.01  # of the images, that another runtime's rounding may route otherwise or classify otherwise

Tell = Callable[[str], None]


@dataclass
class Scenes:
    """The pictures, and how the adaptive bundle runs each of them."""

    pixels: Pixels
    labels: NDArray[np.int64]
    objects: NDArray[np.int64]
    found: NDArray[np.int64]  # classes
    depth: NDArray[np.uint8]  # (images, N)
    bucket: NDArray[np.int64]  # the index of the bucket that ran last
    overflow: NDArray[np.bool_]  # was the predicted bucket too small?
    fitted: NDArray[np.bool_]  # were the buckets fitted to it?


@dataclass
class ScenesRun:
    """What every command made of the scenes; `timed` is filled last, when nothing else runs."""

    config: Config
    survey: Survey | None  # of `inspect`
    calibrated: Calibrated
    verifications: dict[str, Verification]  # by bundle
    scenes: Scenes
    gain: Gain
    timed: Timed | None = None

    @property
    def plan(self) -> Plan:
        """The buckets, fitted to the checkpoint's own thresholds."""
        return self.calibrated.plan

    @property
    def verified(self) -> bool:
        """Did all bundles pass?"""
        return all(one.passed for one in self.verifications.values())

    @property
    def ways(self) -> dict[str, Way]:
        """How each bundle routes: adaptive, what it is compared with and, unless that is the same, every token."""
        ways = {ADAPTIVE: self.gain.adaptive, FIXED: self.gain.compared, DENSE: self.gain.dense}
        return {name: way for name, way in ways.items() if name != FIXED or way is not self.gain.dense}

    @property
    def bundles(self) -> list[str]:
        """Their names, the adaptive one first."""
        return [*self.ways]

    @property
    def sentences(self) -> str:
        """What the scenes cost, what that saves, and what the clock shows."""
        if self.timed is None:
            return gain_sentences(self.gain)
        first, rival = self.bundles[:2]
        times = self.timed.mean_ms[first], self.timed.mean_ms[rival]
        clock = speed_sentence(self.timed.ratios[rival], *times, busy=bool(self.timed.warnings))
        return f"{gain_sentences(self.gain)} {clock}"

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        buckets = [self.plan.buckets[i].name for i in self.scenes.bucket]
        return {
            "sentence": self.sentences,
            "verified": self.verified,
            "plan": self.plan.model_dump(mode="json"),
            "calibration": self.calibrated.as_dict(),
            "verification": {name: one.as_dict() for name, one in self.verifications.items()},
            "gain": self.gain.as_dict(),
            "images": {
                "objects": self.scenes.objects.tolist(),
                "label": self.scenes.labels.tolist(),
                "found": self.scenes.found.tolist(),
                "bucket": buckets,
                "overflow": self.scenes.overflow.tolist(),
                "fitted": self.scenes.fitted.tolist(),
            },
            "timed": None if self.timed is None else self.timed.as_dict(),
        }


def run_scenes(examples: Path, folder: Path, tell: Tell = lambda stage: None) -> ScenesRun:
    """Inspect, calibrate, export, verify and predict; the bundles are written to `folder`.

    Raises MorvitError when a step fails, and ParityError when the bundle runs more than FLIPS of the pictures in
    other buckets, or gives them other classes, than the model does.
    """
    checkpoint, pictures = examples / THRESHOLDS, examples / SCENES
    model, sister = load_checkpoint(checkpoint), load_checkpoint(examples / TOPK)
    check_scene_models(model.config, sister.config)
    images = open_images(pictures, model.config)
    if images.labels is None:
        raise ImageError(f"{pictures}: the demo needs a label for every image (labels.csv)")
    objects = read_objects(images)
    tell("scenes: inspecting")
    survey = inspect(checkpoint, pictures, limit=INSPECTED).survey
    tell("scenes: calibrating; the checkpoint owns thresholds, so only buckets are fitted")
    calibrated = calibrate(checkpoint, pictures, limit=FITTED, allow_worse=True)
    write_text(folder / f"{ADAPTIVE}.plan.json", calibrated.plan.to_json())
    tell("scenes: exporting and verifying the buckets")
    exported = export(checkpoint, folder / ADAPTIVE, plan=calibrated.plan, images=pictures, allow_worse=True)
    verifications = {ADAPTIVE: exported.verification}
    tell(f"scenes: predicting {len(images)} images")
    scenes, adaptive = _adaptive(model, calibrated.plan, images, objects, folder / ADAPTIVE)
    tell("scenes: routing the same images by top-k, at several budgets")
    gain = Gain(
        adaptive,
        every_token(THRESHOLDS, model, scenes.pixels, scenes.labels),
        [
            *by_scales(THRESHOLDS, model, scenes.pixels, scenes.labels),
            *by_scales(TOPK, sister, scenes.pixels, scenes.labels),
        ],
        objects,
    )
    run = ScenesRun(model.config, survey, calibrated, verifications, scenes, gain)
    for name in run.bundles[1:]:
        tell(f"scenes: exporting {run.ways[name].name}")
        verifications[name] = _export(examples, folder / name, run.ways[name], pictures)
    return run


def time_scenes(
    run: ScenesRun, folder: Path, tell: Tell = lambda stage: None, *, quick: bool = False
) -> None:
    """Measure the bundles on every picture, in turn."""
    tell("scenes: timing adaptive routing against top-k and every token")
    run.timed = measure_pictures(
        {name: folder / name for name in run.bundles}, run.scenes.pixels, quick=quick
    )


def _adaptive(
    model: MoRViT, plan: Plan, images: ImageFolder, objects: NDArray[np.int64], bundle: Path
) -> tuple[Scenes, Way]:
    """The pictures in the adaptive bundle, which must run as the plan says."""
    pixels, labels = images.all(), np.array(images.labels)
    with open_bundle(bundle) as session:
        outputs = session.run(pixels)
    found = outputs["logits"].argmax(axis=-1)
    scouted = by_thresholds(model, pixels)
    bucket, overflow = plan.dispatched(scouted.counts)
    ran = outputs.get("bucket", np.zeros(len(pixels), dtype=np.int64)).astype(np.int64)
    other = int(((ran != bucket) | (found != scouted.predictions)).sum())
    if other > FLIPS * len(pixels):
        raise ParityError(
            f"{bundle.name}: {other} of {len(pixels)} scenes ran in another bucket than planned, or got another class"
        )
    macs = macs_of_images(model.config, plan, scouted.counts)
    chosen = {entry.path for entry in open_images(images.folder, model.config, limit=FITTED).entries}
    fitted = np.array([entry.path in chosen for entry in images.entries])
    scenes = Scenes(pixels, labels, objects, found, scouted.depth, ran, overflow, fitted)
    return scenes, Way("adaptive routing", found == labels, macs, THRESHOLDS)


def _export(examples: Path, out: Path, way: Way, pictures: Path) -> Verification:
    """A bundle of a fixed schedule."""
    checkpoint = examples / way.checkpoint
    plan = topk_plan(load_config(checkpoint), way.capacity)
    return export(checkpoint, out, plan=plan, images=pictures).verification
