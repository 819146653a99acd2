"""Every step on a trained model: inspect, export, verify, predict, calibrate, bench, report."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.images import ImageFolder, open_images
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise
from morvit_deploy.cli.demo import IMAGES, MODELS
from morvit_deploy.errors import ImageError, ParityError
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.base import Exported
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.exporters.verification import verify
from morvit_deploy.files import files_in, new_folder, write_bytes, write_text
from morvit_deploy.inspecting.depth_maps import draw_overview
from morvit_deploy.inspecting.inspection import inspect
from morvit_deploy.machine.extras import install_line, is_missing
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.views import bench_report
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import dense_macs
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.planning.front import draw, front_table
from morvit_deploy.planning.rounds import Calibrated, calibrate
from morvit_deploy.report import Picture, Report, Table, count, share, size
from morvit_deploy.verifying.outcome import Verification
from morvit_deploy.verifying.views import parity_tables, structure_table

SHOWN = 8  # images in the overview picture
BUCKETS = 2  # of a fitted plan, `full` among them: each is one more trace
BLOCKS, STARTS = 4, 1  # of the measurement: enough to show the order of the bundles, `bench` takes more
PACKAGE_IMAGES = 16  # that the Core ML package is verified on: elsewhere than on a Mac an interpreter runs it
SHOWN_PARTS = (
    6  # of the report, on a terminal: models, three pictures, latency, speed against the naive export
)
_FRONT = "What each way of routing costs and is worth: the checkpoint's schedule and thresholds, both scaled."
RECORD = "demo.json"


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


@dataclass
class Demo:
    """What the demo leaves behind: the folder and its report."""

    folder: Path
    models: list[ModelRun] = field(default_factory=list)
    report: Report = field(default_factory=lambda: Report("morvit-deploy demo"))  # as in report.html
    brief: Report = field(default_factory=lambda: Report("morvit-deploy demo"))  # for a terminal

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "format": "morvit-demo/1",
            "folder": str(self.folder),
            "models": [one.as_dict() for one in self.models],
        }


def run_demo(
    examples: Path,
    out: Path,
    *,
    force: bool = False,
    quick: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
) -> Demo:
    """Take both trained digits models through every step; the first is also timed against a naive export.

    Raises MorvitError when a step fails, ParityError when the bundle and the eager reference disagree on top-1;
    then nothing is left at `out`. `quick` times only as much as shows that it works.
    """
    demo = Demo(out)
    with new_folder(out, marker=RECORD, force=force, inputs=(examples,)) as folder:
        demo.models += _run_models(examples, folder, tell)
        first = demo.models[0]
        if not is_missing("coremltools"):
            tell(f"exporting {first.name} to Core ML")
            first.packaged = _package(examples / first.name, examples / IMAGES, folder, first.name)
        tell("timing against the naive export")
        first.bench = bench(
            [folder / first.name, folder / f"{first.name}-naive", folder / f"{first.name}-adaptive"],
            images=examples / IMAGES,
            blocks=2 if quick else BLOCKS,
            starts=1 if quick else STARTS,
        )
        demo.report.result = demo.brief.result = _result(demo)
        brief = [_summary(demo.models), *_pictures(demo.models, folder), *bench_report(first.bench).parts]
        demo.report.parts = [*brief, *(table for one in demo.models for table in _details(one))]
        (folder / "report.html").write_text(demo.report.html(), encoding="utf-8")
        (folder / "report.md").write_text(demo.report.markdown(), encoding="utf-8")
        record = {**demo.as_dict(), "files": files_in(folder)}
        (folder / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    demo.brief.parts = [_moved(part, out) for part in brief[:SHOWN_PARTS]]
    return demo


def _result(demo: Demo) -> str:
    """That the bundles are the models, and what that is worth."""
    first = demo.models[0]
    assert first.bench is not None
    verified = all(one.verification.passed for one in demo.models)
    speed = f"{first.name} runs {first.bench.ratios[0].median:.2f}× as fast as its naive export"
    return (
        f"{'Both bundles are' if verified else 'A bundle is NOT'} verified against the checkpoint; {speed}. "
        f"{first.adaptive.calibrated.conclusion}"
    )


def _moved(part: Table | Picture, out: Path) -> Table | Picture:
    """A picture where it is after the folder got its name."""
    return replace(part, path=out / part.path.name) if isinstance(part, Picture) else part


def _run_models(examples: Path, folder: Path, tell: Callable[[str], None]) -> list[ModelRun]:
    """The first model here, the second beside it in a process of its own: tracing keeps one core busy."""
    first, second = (examples / name for name in MODELS)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        other = pool.submit(_run_model, second, examples / IMAGES, folder)
        models = [_run_model(first, examples / IMAGES, folder, tell)]
        tell(f"{second.name}: the same steps, in another process")
        return [*models, other.result()]


def _run_model(
    checkpoint: Path, pictures: Path, folder: Path, tell: Callable[[str], None] = lambda stage: None
) -> ModelRun:
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


def _summary(models: list[ModelRun]) -> Table:
    rows: list[tuple[str, ...]] = []
    for one in models:
        macs, dense = one.manifest.macs[one.manifest.plan.buckets[0].name], dense_macs(one.config)
        rows.append(
            (
                one.name,
                one.config.routing,
                share(one.top1),
                share(one.reference_top1),
                count(macs),
                f"{macs / dense:.0%}",
                size(sum(file.bytes for file in one.manifest.files)),
                "yes" if one.verification.passed else "NO",
            )
        )
        rows.append(_adaptive_row(one, dense))
        if one.packaged is not None:
            rows.append(_packaged_row(one, one.packaged, dense))
    columns = ("model", "routing", "top-1", "eager top-1", "MACs", "of dense", "files", "verified")
    caption = (
        "token_choice without a plan exports the `full` bucket: exact, and every token runs every layer. With fitted "
        "buckets MACs are the mean over the images, which are those the plan was fitted to."
    )
    remarks = [f"{one.name}: {one.warning}" for one in models if one.warning]
    if not any(one.packaged for one in models):
        remarks.append(f"Core ML is left out: coremltools is not installed; run `{install_line('coreml')}`.")
    return Table("Models", columns, rows, numeric=(2, 3, 4, 5, 6), caption=" ".join([caption, *remarks]))


def _adaptive_row(one: ModelRun, dense: int) -> tuple[str, ...]:
    chosen, manifest = one.adaptive.calibrated.chosen, one.adaptive.exported.manifest
    return (
        "  with fitted buckets",
        manifest.plan.mode,
        share(one.adaptive.top1),
        "",
        count(chosen.expected_macs),
        f"{chosen.expected_macs / dense:.0%}",
        size(sum(file.bytes for file in manifest.files)),
        "yes" if one.adaptive.exported.verification.passed else "NO",
    )


def _packaged_row(one: ModelRun, packaged: Packaged, dense: int) -> tuple[str, ...]:
    chosen, manifest = one.adaptive.calibrated.chosen, packaged.exported.manifest
    return (
        f"  as a Core ML package, {manifest.precision}",
        manifest.plan.mode,
        share(packaged.top1),
        "",
        count(chosen.expected_macs),
        f"{chosen.expected_macs / dense:.0%}",
        size(sum(file.bytes for file in manifest.files)),
        "yes" if packaged.exported.verification.passed else "NO",
    )


def _package(checkpoint: Path, pictures: Path, folder: Path, name: str) -> Packaged:
    """Export the fitted plan to Core ML and classify the pictures with the package."""
    out = folder / f"{name}-coreml"
    exported = export(
        checkpoint, out, target="coreml", plan=folder / f"{name}.plan.json", images=pictures, limit=PACKAGE_IMAGES,
        with_depth=True, allow_worse=True,
    )  # fmt: skip  # a row of the table shows whether it passed
    images = open_images(pictures, exported.manifest.config)
    with open_bundle(out) as session:
        found = session.logits(images.all()).argmax(axis=-1)
    return Packaged(exported, float((found == np.array(images.labels)).mean()))


def _pictures(models: list[ModelRun], folder: Path) -> list[Picture]:
    caption = "Steps that each patch token ran, over the image: warm is deep (paper, Figure 4)."
    maps = [Picture(f"Token depth, {one.name}", folder / f"{one.name}-depth.png", caption) for one in models]
    first = models[0].name
    front = folder / f"{first}-pareto.png"
    return [*maps, Picture(f"Accuracy/cost trade-off, {first}", front, _FRONT, chart=True)]


def _details(one: ModelRun) -> list[Table]:
    data = one.verification.as_dict()
    tables = [structure_table(data["structure"]), *parity_tables(data)]
    own = [replace(table, title=f"{one.name}: {table.title}") for table in tables]
    data = one.adaptive.exported.verification.as_dict()
    tables = [front_table(one.adaptive.calibrated), structure_table(data["structure"]), *parity_tables(data)]
    return [
        *own,
        *(replace(table, title=f"{one.name} with fitted buckets: {table.title}") for table in tables),
    ]
