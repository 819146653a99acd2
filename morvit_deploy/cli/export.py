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
    images: ImagesOption = None,
    limit: LimitOption = None,
    min_agreement: MinAgreementOption = 0.0,
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
    find_target(target)  # a wrong name is told before PyTorch loads
    number = _batch(batch)
    with opened(checkpoint, said) as source:
        folder = out or Path("build") / f"{source.name}-{target}"
        with stages("loading PyTorch") as tell:
            from morvit_deploy.exporters.api import DEFAULT_LIMIT
            from morvit_deploy.exporters.api import export as run
            from morvit_deploy.views import export_report

            exported = run(
                source.folder, folder, target=target, images=images, limit=limit or DEFAULT_LIMIT, upscale=upscale,
                batch=number, input=input.value, with_depth=with_depth, form=form.value, force=force, tell=tell,
                plan=plan, dispatch=(dispatch or DispatchName.graph).value, min_agreement=min_agreement,
            )  # fmt: skip  # three lines read better than twelve
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
