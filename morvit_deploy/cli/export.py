"""`morvit-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import (
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
from morvit_deploy.cli.shared.sources import opened, takes_source
from morvit_deploy.errors import ConfigError

COREML, TRT = "Target coreml", "Target trt"  # headings of their own options


@command("export")
@takes_source
def export(
    checkpoint: CheckpointArg = None,
    target: Annotated[str, typer.Option(help="Where it will run: onnx, coreml, trt.")] = "onnx",
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
        Literal["graph", "host"] | None,
        typer.Option(
            help="For a plan of several buckets. graph: one self-dispatching graph (onnx: default); host: a stem and "
            "trunks, batches grouped by bucket (coreml: the only one).",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[str, typer.Option(help="Images a run takes: a number, or `dynamic`.")] = "1",
    input: Annotated[
        Literal["uint8", "float"],
        typer.Option(help="uint8: NHWC pixels (coreml: an image); float: normalised NCHW, for drop-in use."),
    ] = "uint8",
    with_depth: Annotated[bool, typer.Option("--with-depth", help="Also answer each token's depth.")] = False,
    form: Annotated[
        Literal["unrolled", "gather_scatter", "masked"],
        typer.Option(help="unrolled, or a baseline to measure against."),
    ] = "unrolled",
    precision: Annotated[
        Literal["fp32", "fp16", "int8", "bf16"] | None,
        typer.Option(
            help="onnx: fp32 (default); fp16, for GPUs; int8, a quarter of the size, needs --images; routers stay in "
            "fp32. coreml: fp16 (default) or fp32. trt: fp16 (default), fp32, int8 or bf16.",
            show_default=False,
        ),
    ] = None,
    int8_flavor: Annotated[
        Literal["cpu", "trt"] | None,
        typer.Option(
            "--int8-flavor",
            help="cpu: what ONNX Runtime multiplies (default); trt: symmetric, for TensorRT.",
            show_default=False,
        ),
    ] = None,
    calibration: Annotated[
        Literal["minmax", "percentile", "entropy"] | None,
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
    ios: Annotated[
        Literal["17", "18"] | None,
        typer.Option(
            help="The oldest iOS that loads the package (default: 18, for several buckets; 17 holds one).",
            show_default=False,
            rich_help_panel=COREML,
        ),
    ] = None,
    layout: Annotated[
        Literal["bsd", "bc1s"] | None,
        typer.Option(
            help="bsd: tokens as rows (default); bc1s: as columns of 1×1 convolutions, attention by head.",
            show_default=False,
            rich_help_panel=COREML,
        ),
    ] = None,
    select: Annotated[
        Literal["topk", "onehot"] | None,
        typer.Option(
            help="topk: tokens are gathered by index (default); onehot: ranked by comparison and taken by a product, "
            "without topk or gather.",
            show_default=False,
            rich_help_panel=COREML,
        ),
    ] = None,
    attention: Annotated[
        Literal["manual", "fused"] | None,
        typer.Option(
            help="manual: product, softmax, product (default); fused: iOS 18's operator, layout bsd.",
            show_default=False,
            rich_help_panel=COREML,
        ),
    ] = None,
    weights: Annotated[
        Literal["float", "int8", "int4", "palette8", "palette6", "palette4"] | None,
        typer.Option(
            help="How weights are stored; products stay in --precision (default: float).",
            show_default=False,
            rich_help_panel=COREML,
        ),
    ] = None,
    classifier: Annotated[
        bool | None,
        typer.Option(
            "--classifier/--no-classifier",
            help="Answer a label (default: where the checkpoint has labels and the plan one bucket).",
            show_default=False,
            rich_help_panel=COREML,
        ),
    ] = None,
    author: Annotated[
        str | None,
        typer.Option(help="Author on the model card.", show_default=False, rich_help_panel=COREML),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license", help="Licence on the model card.", show_default=False, rich_help_panel=COREML
        ),
    ] = None,
    flavor: Annotated[
        Literal["tensorrt", "rtx"] | None,
        typer.Option(
            help="tensorrt, or rtx (TensorRT-RTX, which builds without a GPU); default: what is installed.",
            show_default=False,
            rich_help_panel=TRT,
        ),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-capability",
            metavar="SM89",
            help="rtx: a GPU to build for; may be repeated (default: this machine's; without one, every one from "
            "Ampere on).",
            show_default=False,
            rich_help_panel=TRT,
        ),
    ] = None,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible",
            help="tensorrt: engines also run on other GPUs, from Ampere on.",
            rich_help_panel=TRT,
        ),
    ] = False,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="tensorrt: engines also run with newer versions of the same major one.",
            rich_help_panel=TRT,
        ),
    ] = False,
    max_batch: Annotated[
        int | None,
        typer.Option(
            "--max-batch",
            min=1,
            help="Images that a run takes at most, with --batch dynamic (default: 32).",
            show_default=False,
            rich_help_panel=TRT,
        ),
    ] = None,
    workspace_mib: Annotated[
        int | None,
        typer.Option(
            "--workspace-mib",
            min=1,
            help="Memory that the builder may use to try kernels (default: TensorRT's own).",
            show_default=False,
            rich_help_panel=TRT,
        ),
    ] = None,
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
    from morvit_deploy.exporters.targets import find_target

    check_image_options(images, limit, upscale)
    if dispatch is not None and plan is None:
        raise ConfigError(
            "--dispatch says who chooses between the buckets of a plan; give --plan, or leave it out"
        )
    own = find_target(target).precision  # a wrong name is told before PyTorch loads
    if calibration_limit is not None and (target == "coreml" or (precision or own) == "fp32"):
        what = "target coreml" if target == "coreml" else "fp32"
        raise ConfigError(
            f"--calibration-limit: {what} needs no calibration; give another --precision or target, or leave it out"
        )
    number = _batch(batch)
    of_coreml = {
        "ios": ios and int(ios), "layout": layout, "select": select, "attention": attention, "weights": weights,
        "classifier": classifier, "author": author, "license": licence,
    }  # fmt: skip
    of_trt = {
        "flavor": flavor, "compute_capability": tuple(compute_capability or ()) or None,
        "hardware_compatible": hardware_compatible or None, "version_compatible": version_compatible or None,
        "max_batch": max_batch, "workspace_mib": workspace_mib,
    }  # fmt: skip
    with opened(checkpoint, said) as source:
        folder = out or Path("build") / f"{source.name}-{target}"
        with stages("loading PyTorch") as tell:
            from morvit_deploy.exporters.api import CALIBRATION_LIMIT, DEFAULT_LIMIT
            from morvit_deploy.exporters.api import export as run
            from morvit_deploy.exporters.views import export_report

            exported = run(
                source.folder, folder, target=target, images=images, limit=limit or DEFAULT_LIMIT, upscale=upscale,
                batch=number, input=input, with_depth=with_depth, form=form, force=force, tell=tell,
                plan=plan, dispatch=dispatch, min_agreement=min_agreement, precision=precision,
                int8_flavor=int8_flavor, calibration=calibration, smooth=smooth, max_drop=max_drop,
                calibration_limit=calibration_limit or CALIBRATION_LIMIT, allow_worse=allow_worse,
                **{name: value for name, value in (of_coreml | of_trt).items() if value is not None},
            )  # fmt: skip  # seven lines read better than twenty
    for warning in exported.warnings:
        stderr().print(f"warning: {warning}", markup=False)
    if exported.manifest.config.record.depth_upfront and form == "unrolled" and plan is None:
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
