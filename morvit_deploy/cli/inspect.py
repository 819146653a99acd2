"""`morvit-deploy inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import (
    CheckpointArg,
    ForceOption,
    ImagesOption,
    JsonOption,
    LimitOption,
    UpscaleOption,
    emit,
    progress_bar,
    remark_on_limit,
    stderr,
)
from morvit_deploy.cli.shared.sources import opened, takes_source
from morvit_deploy.errors import OutputError


@command("inspect")
@takes_source
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
    *,
    said: dict[str, Any],
) -> None:
    """Show a checkpoint's parts and costs; with images, how its routers behave, and depth maps."""
    if out is not None and images is None:
        raise OutputError(
            f"-o {out}: there are no depth maps to write without --images; give a folder of images"
        )
    with opened(checkpoint, said) as source:
        folder = out or Path("build") / f"inspect-{source.name}"
        with progress_bar() as (tell, progress):
            tell("loading PyTorch")
            from morvit_deploy.inspecting.inspection import DEFAULT_LIMIT
            from morvit_deploy.inspecting.inspection import inspect as run
            from morvit_deploy.inspecting.views import inspection_report

            found = run(
                source.folder, images, limit=limit or DEFAULT_LIMIT, draw=draw, out=images and folder,
                called=source.given, upscale=upscale, force=force, tell=tell, progress=progress,
            )  # fmt: skip  # two lines read better than ten
        if found.survey is not None:
            remark_on_limit(images, source.folder, len(found.survey.images))
    emit(inspection_report(found), found.as_dict(), as_json)
    if found.survey is None:
        return
    if found.survey.assessment is not None and found.survey.assessment.degenerate:
        stderr().print(
            f"warning: {found.survey.assessment.warning}", markup=False, highlight=False, style="yellow"
        )
