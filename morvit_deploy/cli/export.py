"""`morvit-deploy export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.common import (
    CheckpointArg,
    ForceOption,
    ImagesOption,
    JsonOption,
    LimitOption,
    UpscaleOption,
    check_image_options,
    checkpoint_folder,
    emit,
    stages,
    stderr,
)
from morvit_deploy.errors import ConfigError


class Input(str, Enum):
    """What the graph takes."""

    uint8 = "uint8"
    float = "float"


class FormName(str, Enum):
    """The graph's form; the last two are baselines."""

    unrolled = "unrolled"
    gather_scatter = "gather_scatter"
    masked = "masked"


@command("export")
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
    upscale: UpscaleOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Export a checkpoint to a bundle of static graphs, and verify it before it gets its name."""
    from morvit_deploy.exporters.registry import find_target

    check_image_options(images, limit, upscale)
    find_target(target)  # a wrong name is told before PyTorch loads
    source = checkpoint_folder(checkpoint)
    folder = out or Path("build") / f"{source.resolve().name}-{target}"
    number = _batch(batch)
    with stages("loading PyTorch") as tell:
        from morvit_deploy.exporters.api import DEFAULT_LIMIT
        from morvit_deploy.exporters.api import export as run
        from morvit_deploy.views import export_report

        exported = run(
            source, folder, target=target, images=images, limit=limit or DEFAULT_LIMIT, upscale=upscale, tell=tell,
            batch=number, input=input.value, with_depth=with_depth, form=form.value, force=force,
        )  # fmt: skip  # three lines read better than twelve
    if exported.manifest.config.routing == "token_choice" and form is FormName.unrolled:
        stderr().print(
            "note: without a plan, token_choice exports the `full` bucket: exact, but every token runs every "
            "layer, so nothing is saved"
        )
    data = {"bundle": str(folder), "manifest": exported.manifest.model_dump(mode="json")}
    emit(export_report(folder, exported.manifest, exported.verification), data, as_json)


def _batch(text: str) -> int | str:
    if text == "dynamic":
        return text
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(f"--batch: got {text!r}, expected a positive number or `dynamic`")
