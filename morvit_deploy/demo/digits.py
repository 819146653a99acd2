"""A digits model through every step: inspect, export, verify, predict, calibrate, export the plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.images import ImageFolder, open_images
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise
from morvit_deploy.errors import ImageError, ParityError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.base import Exported
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.exporters.verification import verify
from morvit_deploy.files import write_bytes, write_text
from morvit_deploy.inspecting.depth_maps import draw_overview
from morvit_deploy.inspecting.inspection import inspect
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.planning.front import draw
from morvit_deploy.planning.rounds import Calibrated, calibrate
from morvit_deploy.verifying.outcome import Verification

SHOWN = 8  # images in the overview picture
BUCKETS = 2  # of a fitted plan, `full` among them: each is one more trace
PACKAGE_IMAGES = 16  # that the Core ML package is verified on: elsewhere than on a Mac an interpreter runs it


@dataclass
class Adaptive:
    """The same model with a fitted plan: each image in a bucket of its own size."""

    calibrated: Calibrated
    exported: Exported
    top1: float  # of the bundle, on the images it was calibrated on
    served: dict[str, int]  # images by the bucket that ran them

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {
            "plan": self.calibrated.plan.model_dump(mode="json"),
            "pareto": self.calibrated.as_dict(),
            "verification": self.exported.verification.as_dict(),
            "top1": self.top1,
            "served": self.served,
        }


@dataclass
class Packaged:
    """The adaptive model as a Core ML package in fp16, run by whatever runs it here."""

    exported: Exported
    top1: float  # of the package, on the test images

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {"verification": self.exported.verification.as_dict(), "top1": self.top1}


@dataclass
class ModelRun:
    """What every command made of one model."""

    name: str
    config: Config
    manifest: Manifest
    verification: Verification
    top1: float  # of the bundle, on the test images
    reference_top1: float  # of the eager reference, on the same
    same_answers: float  # share of images with the same class
    adaptive: Adaptive
    packaged: Packaged | None = None
    bench: BenchResult | None = None
    warning: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {
            "name": self.name,
            "top1": self.top1,
            "reference_top1": self.reference_top1,
            "same_answers": self.same_answers,
            "macs": self.manifest.macs,
            "verification": self.verification.as_dict(),
            "routing_warning": self.warning,
            "adaptive": self.adaptive.as_dict(),
            "coreml": None if self.packaged is None else self.packaged.as_dict(),
            "bench": None if self.bench is None else self.bench.as_dict(),
        }


def run_model(
    checkpoint: Path, pictures: Path, folder: Path, tell: Callable[[str], None] = lambda stage: None
) -> ModelRun:
    """Every step but the measurement; bundles and pictures are written to `folder`."""
    name = checkpoint.name
    tell(f"{name}: inspecting")
    survey = inspect(checkpoint, pictures, limit=64).survey
    tell(f"{name}: exporting")
    images = open_images(pictures, load_checkpoint(checkpoint).config)
    manifest = export(checkpoint, folder / name, with_depth=True).manifest
    if manifest.config.schedule is not None:
        tell(f"{name}: exporting as without this tool")
        export(checkpoint, folder / f"{name}-naive", form="masked")
    tell(f"{name}: verifying")
    verification = verify(folder / name, checkpoint, images=pictures)
    tell(f"{name}: predicting {len(images)} images")
    top1, reference_top1, same = _predict(folder, name, load_checkpoint(checkpoint), images)
    adaptive = _adapt(checkpoint, pictures, folder, tell)
    warning = (
        survey.assessment.warning if survey and survey.assessment and survey.assessment.degenerate else ""
    )
    return ModelRun(
        name, manifest.config, manifest, verification, top1, reference_top1, same, adaptive, warning=warning
    )


def _adapt(checkpoint: Path, pictures: Path, folder: Path, tell: Callable[[str], None]) -> Adaptive:
    """Calibrate, export with the plan, and predict."""
    name = checkpoint.name
    tell(f"{name}: calibrating")
    calibrated = calibrate(checkpoint, pictures, mode="threshold", buckets=BUCKETS, allow_worse=True)
    plan = folder / f"{name}.plan.json"
    write_text(plan, calibrated.plan.to_json())
    write_bytes(folder / f"{name}-pareto.png", draw(calibrated))
    tell(f"{name}: exporting the plan's buckets")
    out = folder / f"{name}-adaptive"
    exported = export(checkpoint, out, plan=plan, images=pictures, with_depth=True, allow_worse=True)
    images = open_images(pictures, exported.manifest.config)
    with open_bundle(out) as session:
        outputs = session.run(images.all())
    buckets = exported.manifest.plan.buckets
    numbers = outputs.get("bucket", np.zeros(len(images), dtype=np.int32))
    served = {bucket.name: int((numbers == number).sum()) for number, bucket in enumerate(buckets)}
    right = outputs["logits"].argmax(axis=-1) == np.array(images.labels)
    return Adaptive(calibrated, exported, float(right.mean()), served)


def _predict(folder: Path, name: str, model: MoRViT, images: ImageFolder) -> tuple[float, float, float]:
    """Top-1 of bundle and eager reference on all images, and how often they agree; draws the overview."""
    if images.labels is None:
        raise ImageError(f"{images.folder}: the demo needs a label for every image (labels.csv)")
    pixels, labels = images.all(), np.array(images.labels)
    with open_bundle(folder / name) as session:
        outputs = session.run(pixels)
    found, eager = outputs["logits"].argmax(axis=-1), _eager(model, pixels)
    draw_overview(
        folder / f"{name}-depth.png",
        pixels[:SHOWN],
        outputs["depth"],
        model.config.num_steps,
        titles=[f"{images.entries[i].path.name}: read as {found[i]}" for i in range(min(SHOWN, len(found)))],
        heading=f"Token depth, {name}",
    )
    top1, eager_top1 = float((found == labels).mean()), float((eager == labels).mean())
    if top1 != eager_top1:
        raise ParityError(
            f"{name}: top-1 of the bundle is {top1:.2%}, of the eager reference {eager_top1:.2%}"
        )
    return top1, eager_top1, float((found == eager).mean())


def _eager(model: MoRViT, pixels: Pixels) -> NDArray[Any]:
    """Classes by the reference in float32, a few images at a time (it keeps every state)."""
    parts = np.array_split(pixels, max(1, len(pixels) // 20))
    with fitting_threads(model.config):
        logits = [model(torch.from_numpy(normalise(part, model.config.preprocess))).logits for part in parts]
    return torch.cat(logits).argmax(dim=-1).numpy()


def run_package(checkpoint: Path, pictures: Path, folder: Path) -> Packaged:
    """Export the fitted plan to Core ML and classify the pictures with the package."""
    name = checkpoint.name
    out = folder / f"{name}-coreml"
    exported = export(
        checkpoint, out, target="coreml", plan=folder / f"{name}.plan.json", images=pictures, limit=PACKAGE_IMAGES,
        with_depth=True, allow_worse=True,
    )  # fmt: skip  # a row of the table shows whether it passed
    images = open_images(pictures, exported.manifest.config)
    with open_bundle(out) as session:
        found = session.logits(images.all()).argmax(axis=-1)
    return Packaged(exported, float((found == np.array(images.labels)).mean()))
