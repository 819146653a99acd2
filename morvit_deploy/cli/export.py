"""`morvit-deploy export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.common import (
    CheckpointArg,
    ForceOption,
    ImagesOption,
    JsonOption,
    LimitOption,
    MinAgreementOption,
    UpscaleOption,
    check_image_options,
    emit,
    stages,
    stderr,
)
from morvit_deploy.cli.sources import opened, takes_source
from morvit_deploy.errors import ConfigError


class Input(str, Enum):
    """What the graph takes."""

    uint8 = "uint8"
    float = "float"


class DispatchName(str, Enum):
    """Who chooses the bucket of an image."""

    graph = "graph"
    host = "host"


class PrecisionName(str, Enum):
    """What the layers compute in."""

    fp32 = "fp32"
    fp16 = "fp16"
    int8 = "int8"


class FlavorName(str, Enum):
    """The runtime that an int8 graph is for."""

    cpu = "cpu"
    trt = "trt"


class CalibrationName(str, Enum):
    """How the range of an activation is chosen."""

    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"


class FormName(str, Enum):
    """The graph's form; the last two are baselines."""

    unrolled = "unrolled"
    gather_scatter = "gather_scatter"
    masked = "masked"


@command("export")
@takes_source
def export(
    checkpoint: CheckpointArg = None,
    target: Annotated[str, typer.Option(help="Where it will run: onnx.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Bundle folder to write (default: build/CHECKPOINT-TARGET).",
            show_default=False,
        ),
    ] = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan",
            help="Plan file of `calibrate` (default: the checkpoint's own schedule, one bucket).",
            show_default=False,
        ),
    ] = None,
    dispatch: Annotated[
        DispatchName | None,
        typer.Option(
            help="For a plan of several buckets. graph: one self-dispatching graph (default); host: a stem and "
            "trunks, batches grouped by bucket.",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Images a run takes: a number, or `dynamic`.")] = "1",
    input: Annotated[
        Input, typer.Option(help="uint8: NHWC pixels; float: normalised NCHW, for drop-in use.")
    ] = Input.uint8,
    with_depth: Annotated[bool, typer.Option("--with-depth", help="Also answer each token's depth.")] = False,
    form: Annotated[
        FormName, typer.Option(help="unrolled, or a baseline to measure against: gather_scatter, masked.")
    ] = FormName.unrolled,
    precision: Annotated[
        PrecisionName,
        typer.Option(
            help="fp16: for GPUs; int8: a quarter of the size, needs --images. Routers stay in fp32."
        ),
    ] = PrecisionName.fp32,
    int8_flavor: Annotated[
        FlavorName | None,
        typer.Option(
            "--int8-flavor",
            help="cpu: what ONNX Runtime multiplies (default); trt: symmetric, for TensorRT.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        CalibrationName | None,
        typer.Option(
            help="int8 ranges: percentile (99.99 % of the values; default), minmax (one look), entropy.",
            show_default=False,
        ),
    ] = None,
    calibration_limit: Annotated[
        int | None,
        typer.Option(
            "--calibration-limit",
            min=1,
            help="Images of --images for int8 ranges or fp16 probes (default: 256), beside those of --limit.",
            show_default=False,
        ),
    ] = None,
    smooth: Annotated[
        bool,
        typer.Option("--smooth", help="int8: move difficulty from activations to weights (SmoothQuant)."),
    ] = False,
    max_drop: Annotated[
        float | None,
        typer.Option(
            "--max-drop",
            min=0.0,
            max=100.0,
            help="int8: points of top-1 (without labels, of agreement) that may be lost; beyond, the worst layers "
            "stay in float.",
            show_default=False,
        ),
    ] = None,
    allow_worse: Annotated[
        bool,
        typer.Option(
            "--allow-worse", help="Keep a bundle that misses its precision's gate or is not faster than fp32."
        ),
    ] = False,
    images: ImagesOption = None,
    limit: LimitOption = None,
    min_agreement: MinAgreementOption = None,
    upscale: UpscaleOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    *,
    said: dict[str, Any],
) -> None:
    """Export a checkpoint to a bundle of static graphs, and verify it before it gets its name."""
    from morvit_deploy.exporters.registry import find_target

    check_image_options(images, limit, upscale)
    if dispatch is not None and plan is None:
        raise ConfigError(
            "--dispatch says who chooses between the buckets of a plan; give --plan, or leave it out"
        )
    if calibration_limit is not None and precision is PrecisionName.fp32:
        raise ConfigError("--calibration-limit: fp32 needs no calibration; give --precision, or leave it out")
    find_target(target)  # a wrong name is told before PyTorch loads
    number = _batch(batch)
    with opened(checkpoint, said) as source:
        folder = out or Path("build") / f"{source.name}-{target}"
        with stages("loading PyTorch") as tell:
            from morvit_deploy.exporters.api import CALIBRATION_LIMIT, DEFAULT_LIMIT
            from morvit_deploy.exporters.api import export as run
            from morvit_deploy.views import export_report

            exported = run(
                source.folder, folder, target=target, images=images, limit=limit or DEFAULT_LIMIT, upscale=upscale,
                batch=number, input=input.value, with_depth=with_depth, form=form.value, force=force, tell=tell,
                plan=plan, dispatch=(dispatch or DispatchName.graph).value, min_agreement=min_agreement,
                precision=precision.value, int8_flavor=int8_flavor and int8_flavor.value,
                calibration=calibration and calibration.value, smooth=smooth, max_drop=max_drop,
                calibration_limit=calibration_limit or CALIBRATION_LIMIT, allow_worse=allow_worse,
            )  # fmt: skip  # six lines read better than twenty
    for remark in exported.manifest.lowering.facts.get("remarks", ()) if exported.manifest.lowering else ():
        stderr().print(f"warning: {remark}", markup=False)
    for missed in exported.manifest.lowering.accepted if exported.manifest.lowering else ():
        stderr().print(f"warning: let through by --allow-worse: {missed}", markup=False)
    if exported.manifest.config.routing == "token_choice" and form is FormName.unrolled and plan is None:
        stderr().print(
            "note: without a plan, token_choice exports the `full` bucket: exact, but every token runs every "
            "layer, so nothing is saved; `morvit-deploy calibrate` fits one"
        )
    if dispatch is not None and exported.manifest.dispatch == "single":
        stderr().print(
            "note: the plan has one bucket, so there is nothing to choose; --dispatch changes nothing"
        )
    data = {"bundle": str(folder), "manifest": exported.manifest.model_dump(mode="json")}
    emit(export_report(folder, exported.manifest, exported.verification), data, as_json)


def _batch(text: str) -> int | str:
    if text == "dynamic":
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(f"--batch: got {text!r}, expected a positive number or `dynamic`")
