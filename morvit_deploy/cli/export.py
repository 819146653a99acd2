"""`morvit-deploy export`. Its options are the fields of `Request` and of each target's own options."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, note, warn, working
from morvit_deploy.cli.shared.derived import Derived, shown
from morvit_deploy.cli.shared.groups import OUTPUT, Checkpoint, Output, Verification
from morvit_deploy.cli.shared.sources import AlsoForeign, opened
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.options import Help
from morvit_deploy.model.choices import PRECISIONS

if TYPE_CHECKING:
    from morvit_deploy.exporters.base import Exported
    from morvit_deploy.exporters.options import Option
    from morvit_deploy.exporters.targets import Target

WHAT = "What to export"


def _options() -> Iterable[Option]:
    """Those of every target."""
    from morvit_deploy.exporters.options import options_of
    from morvit_deploy.exporters.request import Request
    from morvit_deploy.exporters.targets import targets

    found = {option.name: option for option in shown(options_of(Request), WHAT)}
    for target in targets().values():
        for option in shown(options_of(target.options), f"Target {target.name}"):
            found[option.name] = _shared(found.get(option.name), option)
    return found.values()


def _shared(known: Option | None, option: Option) -> Option:
    """One option of two targets: the values of both, under both names; each target checks its own values."""
    if known is None or known.help is None or option.help is None:
        return known or option
    panel = f"{known.help.panel}, {(option.help.panel or '').removeprefix('Target ')}"
    choices = tuple(dict.fromkeys((*known.choices, *option.choices)))
    return replace(known, choices=choices, help=replace(known.help, panel=panel))


@command(
    "export",
    "morvit-deploy export my-model --plan plan.json --images photos",
    "morvit-deploy export my-model --target coreml -o build/phone",
)
def export(
    checkpoint: Checkpoint = None,
    *,
    options: Annotated[dict[str, Any], Derived(_options)],
    batch: Annotated[
        str, Help("Images per run: a number, or `dynamic`.", "N", show_default=True, panel=WHAT)
    ] = "1",
    compared: Verification,
    out: Annotated[
        Path | None,
        Help("Bundle folder to write (default: build/CHECKPOINT-TARGET).", "DIR", short="-o", panel=OUTPUT),
    ] = None,
    output: Output,
    foreign: AlsoForeign,
) -> None:
    """Export a checkpoint to a bundle of static graphs. The bundle is verified before it is written in place."""
    from morvit_deploy.exporters.targets import find_target

    compared.check()
    target = find_target(options["target"])  # a wrong name is reported before PyTorch loads
    _check(options, target)
    number = _batch(batch)
    with opened(checkpoint, foreign) as source:
        said = compared.say(source.folder)
        folder = out or Path("build") / f"{source.name}-{target.name}"
        with working("loading PyTorch") as (tell, progress):
            from morvit_deploy.exporters.api import DEFAULT_LIMIT
            from morvit_deploy.exporters.api import export as run
            from morvit_deploy.exporters.views import export_report

            exported = run(
                source.folder, folder, batch=number, images=compared.images, limit=compared.limit or DEFAULT_LIMIT,
                upscale=compared.upscale, exif=compared.exif, min_agreement=compared.min_agreement,
                reference=compared.reference, force=output.force, tell=tell, progress=progress, **options,
            )  # fmt: skip
    _remark(exported, options)
    data = {"bundle": str(folder), "manifest": exported.manifest.model_dump(mode="json"), "images_read": said}
    emit(export_report(folder, exported.manifest, exported.verification), data, output.json)


def _check(options: Mapping[str, Any], target: Target) -> None:
    """ConfigError for an option that nothing would use."""
    if "dispatch" in options and "plan" not in options:
        raise ConfigError(
            "--dispatch sets who chooses between the buckets of a plan; give --plan, or leave it out"
        )
    target.check_export()
    precision = options.get("precision", target.precision)
    if "calibration_limit" in options and (
        PRECISIONS[precision].calibration == "no" or not target.calibrates
    ):
        what = precision if target.calibrates else f"target {target.name}"
        raise ConfigError(
            f"--calibration-limit: {what} needs no calibration; give another --precision or target, or leave it out"
        )


def _remark(exported: Exported, options: Mapping[str, Any]) -> None:
    """What the user should know beside the report."""
    manifest = exported.manifest
    warn(exported.warnings)
    if manifest.config.ragged and manifest.form == "unrolled" and "plan" not in options:
        what = (
            "a checkpoint with thresholds of its own"
            if manifest.config.thresholds
            else manifest.config.routing
        )
        note(
            f"without a plan, {what} exports the `full` bucket: exact, but every token runs every layer, so no "
            "compute is saved; `morvit-deploy calibrate` fits a plan"
        )
    if "dispatch" in options and manifest.dispatch == "single":
        note("the plan has one bucket, so there is nothing to choose; --dispatch changes nothing")


def _batch(text: str) -> int | Literal["dynamic"]:
    if text == "dynamic":
        return "dynamic"
    if text.isdecimal() and len(text) < 19 and int(text) > 0:
        return int(text)
    raise ConfigError(f"--batch: got {text!r}, expected a positive number or `dynamic`")
