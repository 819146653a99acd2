"""`morvit-deploy export`. Its options are the fields of `Request` and of each target's own options."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from morvit_deploy.cli.shared.derived import DerivedCommand, given, shown
from morvit_deploy.cli.shared.sources import opened, takes_source
from morvit_deploy.errors import ConfigError

if TYPE_CHECKING:
    from morvit_deploy.exporters.base import Exported
    from morvit_deploy.exporters.options import Option


class ExportCommand(DerivedCommand):
    """`export` with the options of every target."""

    def options(self) -> dict[str, tuple[Option, str | None]]:
        from morvit_deploy.exporters.options import options_of
        from morvit_deploy.exporters.request import Request
        from morvit_deploy.exporters.targets import targets

        found: dict[str, tuple[Option, str | None]] = {
            option.name: (option, None) for option in shown(options_of(Request))
        }
        for target in targets().values():
            for option in shown(options_of(target.options)):
                found.setdefault(option.name, (option, f"Target {target.name}"))
        return found


@command("export", cls=ExportCommand)
@takes_source
def export(
    context: typer.Context,
    checkpoint: CheckpointArg = None,
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

    options = given(context)
    check_image_options(images, limit, upscale)
    if "dispatch" in options and "plan" not in options:
        raise ConfigError(
            "--dispatch says who chooses between the buckets of a plan; give --plan, or leave it out"
        )
    target = find_target(options["target"])  # a wrong name is reported before PyTorch loads
    target.check_export()
    precision = options.get("precision", target.precision)
    if "calibration_limit" in options and (precision == "fp32" or not target.calibrates):
        what = "fp32" if target.calibrates else f"target {target.name}"
        raise ConfigError(
            f"--calibration-limit: {what} needs no calibration; give another --precision or target, or leave it out"
        )
    number = _batch(batch)
    with opened(checkpoint, said) as source:
        folder = out or Path("build") / f"{source.name}-{target.name}"
        with stages("loading PyTorch") as tell:
            from morvit_deploy.exporters.api import DEFAULT_LIMIT
            from morvit_deploy.exporters.api import export as run
            from morvit_deploy.exporters.views import export_report

            exported = run(
                source.folder, folder, batch=number, images=images, limit=limit or DEFAULT_LIMIT, upscale=upscale,
                min_agreement=min_agreement, force=force, tell=tell, **options,
            )  # fmt: skip
    _remark(exported, options)
    data = {"bundle": str(folder), "manifest": exported.manifest.model_dump(mode="json")}
    emit(export_report(folder, exported.manifest, exported.verification), data, as_json)


def _remark(exported: Exported, options: Mapping[str, Any]) -> None:
    """What the user should know beside the report."""
    manifest = exported.manifest
    for warning in exported.warnings:
        stderr().print(f"warning: {warning}", markup=False)
    if manifest.config.record.depth_upfront and manifest.form == "unrolled" and "plan" not in options:
        stderr().print(
            "note: without a plan, token_choice exports the `full` bucket: exact, but every token runs every "
            "layer, so nothing is saved; `morvit-deploy calibrate` fits one"
        )
    if "dispatch" in options and manifest.dispatch == "single":
        stderr().print(
            "note: the plan has one bucket, so there is nothing to choose; --dispatch changes nothing"
        )


def _batch(text: str) -> int | Literal["dynamic"]:
    if text == "dynamic":
        return "dynamic"
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise ConfigError(f"--batch: got {text!r}, expected a positive number or `dynamic`")
