"""`morvit-deploy inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, warn, working
from morvit_deploy.cli.shared.groups import OUTPUT, Checkpoint, Output, Page, Pictures
from morvit_deploy.cli.shared.pages import check_page, with_command, write_page
from morvit_deploy.cli.shared.sources import AlsoForeign, opened
from morvit_deploy.errors import CheckFailed, ConfigError, OutputError
from morvit_deploy.exporters.options import Help

if TYPE_CHECKING:
    from morvit_deploy.inspecting.degeneracy import Assessment


@command(
    "inspect", "morvit-deploy inspect my-model", "morvit-deploy inspect my-model --images photos -o maps"
)
def inspect(
    checkpoint: Checkpoint = None,
    *,
    pictures: Pictures,
    draw: Annotated[
        int,
        Help("Number of images to draw a depth map of.", least=0, show_default=True, panel=Pictures.panel),
    ] = 8,
    out: Annotated[
        Path | None,
        Help("Folder for depth maps (default: build/inspect-CHECKPOINT).", "DIR", short="-o", panel=OUTPUT),
    ] = None,
    fail_on_degenerate: Annotated[
        bool,
        Help("Exit with status 1 if a check of the routers fails on the images.", panel=Pictures.panel),
    ] = False,
    report: Page = None,
    output: Output,
    foreign: AlsoForeign,
) -> None:
    """Show a checkpoint's parts and costs; with --images also how its routers behave, and depth maps."""
    images = pictures.images
    pictures.check()
    _check_words(images, out, fail_on_degenerate)
    check_page(report, force=output.force, inputs=(checkpoint, images))
    with opened(checkpoint, foreign) as source:
        said = pictures.say(source.folder)
        folder = out or Path("build") / f"inspect-{source.name}"
        with working("loading PyTorch") as (tell, progress):
            from morvit_deploy.inspecting.inspection import DEFAULT_LIMIT
            from morvit_deploy.inspecting.inspection import inspect as run
            from morvit_deploy.inspecting.views import inspection_report

            found = run(
                source.folder, images, limit=pictures.limit or DEFAULT_LIMIT, draw=draw, out=images and folder,
                called=source.given, upscale=pictures.upscale, exif=pictures.exif, force=output.force, tell=tell,
                progress=progress,
            )  # fmt: skip  # two lines read better than ten
        if found.survey is not None:
            pictures.remark_on_limit(source.folder, len(found.survey.images))
    shown = inspection_report(found)
    emit(shown, found.as_dict() | {"images_read": said}, output.json)
    assessment = found.survey.assessment if found.survey else None
    doubts = [assessment.warning] if assessment and assessment.degenerate else []
    write_page(report, with_command(shown, doubts), force=output.force)
    if fail_on_degenerate:
        _check(assessment)
    elif assessment is not None and assessment.degenerate:
        warn([assessment.warning])


def _check_words(images: Path | None, out: Path | None, fail_on_degenerate: bool) -> None:
    """Raise for options that need --images, without it."""
    if fail_on_degenerate and images is None:
        raise ConfigError("--fail-on-degenerate judges routers on images; give --images DIR")
    if out is not None and images is None:
        raise OutputError(
            f"-o {out}: there are no depth maps to write without --images; give a folder of images"
        )


def _check(assessment: Assessment | None) -> None:
    """CheckFailed unless the routers were judged and no check failed."""
    from morvit_deploy.inspecting.checks import BLIND_IMAGES

    if assessment is None:
        raise ConfigError("--fail-on-degenerate: the model has no routers to judge; leave it out")
    if assessment.degenerate:
        raise CheckFailed(assessment.warning)
    if assessment.images < BLIND_IMAGES:
        raise CheckFailed(
            f"the routers cannot be judged: got {assessment.images} different images, expected at least "
            f"{BLIND_IMAGES}; give more with --images or --limit"
        )
