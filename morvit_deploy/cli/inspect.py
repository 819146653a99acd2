"""`morvit-deploy inspect`."""

from __future__ import annotations

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
    checkpoint_folder,
    emit,
    progress_bar,
    remark_on_limit,
    stderr,
)
from morvit_deploy.errors import OutputError


@command("inspect")
def inspect(
    checkpoint: CheckpointArg = None,
    images: ImagesOption = None,
    limit: LimitOption = None,
    draw: Annotated[int, typer.Option(min=0, help="Depth maps of this many single images.")] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Folder for depth maps (default: build/inspect-CHECKPOINT).",
            show_default=False,
        ),
    ] = None,
    upscale: UpscaleOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show a checkpoint's parts and costs; with images, how its routers behave, and depth maps."""
    source = checkpoint_folder(checkpoint)
    if out is not None and images is None:
        raise OutputError(
            f"-o {out}: there are no depth maps to write without --images; give a folder of images"
        )
    folder = out or Path("build") / f"inspect-{source.resolve().name}"
    with progress_bar() as (tell, progress):
        tell("loading PyTorch")
        from morvit_deploy.inspecting.inspection import DEFAULT_LIMIT, inspect_checkpoint
        from morvit_deploy.inspecting.views import inspection_report

        found = inspect_checkpoint(
            source, images=images, limit=limit or DEFAULT_LIMIT, draw=draw, out=images and folder,
            upscale=upscale, force=force, tell=tell, progress=progress,
        )  # fmt: skip  # two lines read better than ten
    emit(inspection_report(found), found.as_dict(), as_json)
    if found.survey is None:
        return
    remark_on_limit(images, source, len(found.survey.images))
    if found.survey.judgement is not None and found.survey.judgement.degenerate:
        stderr().print(
            f"warning: {found.survey.judgement.warning}", markup=False, highlight=False, style="yellow"
        )
