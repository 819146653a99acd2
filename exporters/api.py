"""`export` as a Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.base import Exported
from morvit_deploy.exporters.options import TargetOptions, options_of
from morvit_deploy.exporters.pictures import held_apart
from morvit_deploy.exporters.request import CALIBRATION_LIMIT, DEFAULT_LIMIT, Request
from morvit_deploy.exporters.targets import Target, find_target, targets
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.machine.extras import names_extra
from morvit_deploy.model.choices import Input, Int8Flavor, Method, Output, Precision, Variant
from morvit_deploy.model.merges.schedules import as_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from morvit_deploy.exporters.coreml.contract.options import CoremlKeywords
    from morvit_deploy.exporters.onnx.options import OnnxKeywords
    from morvit_deploy.exporters.trt.options import TrtKeywords
    from morvit_deploy.model.plan import Plan

    class TargetKeywords(CoremlKeywords, OnnxKeywords, TrtKeywords, total=False):
        """Options of single targets for the type checker; each target's dataclass defines them."""


__all__ = ["CALIBRATION_LIMIT", "DEFAULT_LIMIT", "export", "held_apart"]


def _own_names() -> list[str]:
    """The options of single targets."""
    return [option.name for target in targets().values() for option in options_of(target.options)]


@names_extra("export")
@checks_keywords(_own_names)
def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    target: str = "onnx",
    plan: str | Path | Plan | None = None,
    merge: int | Sequence[int] | str | Path | None = None,
    merge_to: float | None = None,
    proportional_attention: bool = False,
    dispatch: Literal["graph", "host"] | None = None,
    batch: int | Literal["dynamic"] = 1,
    input: Input = "uint8",
    with_depth: bool = False,
    output: Output = "logits",
    form: Variant = "unrolled",
    precision: Precision | None = None,
    int8_flavor: Int8Flavor | None = None,
    calibration: Method | None = None,
    calibration_limit: int = CALIBRATION_LIMIT,
    smooth: bool = False,
    max_drop: float | None = None,
    allow_worse: bool = False,
    images: str | Path | None = None,
    limit: int = DEFAULT_LIMIT,
    upscale: bool = False,
    exif: bool = False,
    min_agreement: float | None = None,
    reference: str | Path | None = None,
    force: bool = False,
    options: TargetOptions | None = None,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
    **own: Unpack[TargetKeywords],
) -> Exported:
    """Export a checkpoint folder to a verified bundle at `out`.

    `precision` defaults to the target's own. The bundle is verified on at most `limit` pictures of the folder
    `images`, or on synthetic ones. Below fp32 it is calibrated on at most `calibration_limit` other pictures.
    Options of one target are given as keywords or, as the target's class, in `options`: `CoremlOptions` for
    `coreml`, `OnnxOptions` for `onnx`, `TrtOptions` for `trt`. `Request` describes the other options. `plan` is
    a plan file or the plan of `calibrate`. `merge`, `merge_to` and `proportional_attention` merge tokens of a plain
    ViT, as `merge_tokens` does. `reference` is an `.npz` file with the source's own outputs, as for
    `convert`. `tell` is called with each stage, `progress` with the share of it that is done, where that is known.

    Raises ConfigError, PlanError, CheckpointError, ImageError, OutputError or TargetError on bad input,
    StructureError, ParityError, PrecisionError or AccuracyError when a check fails; then nothing is written.

    >>> md.export("checkpoint", "build/onnx")
    >>> md.export("checkpoint", "build/phone", target="coreml", plan="plan.json", weights="int8", images="photos")
    """
    found = find_target(target)
    if options is not None and own:
        raise ConfigError(f"{', '.join(own)}: given beside options; put all of them into options")
    request = Request(
        checkpoint=Path(checkpoint),
        out=Path(out),
        target=target,
        plan=Path(plan) if isinstance(plan, str) else plan,
        merge=None if merge is None else as_text(merge),
        merge_to=merge_to,
        proportional_attention=proportional_attention,
        dispatch=dispatch,
        batch=batch,
        input=input,
        with_depth=with_depth,
        output=output,
        form=form,
        precision=precision or found.precision,
        int8_flavor=int8_flavor,
        calibration=calibration,
        calibration_limit=calibration_limit,
        smooth=smooth,
        max_drop=max_drop,
        allow_worse=allow_worse,
        images=None if images is None else Path(images),
        limit=limit,
        upscale=upscale,
        exif=exif,
        min_agreement=min_agreement,
        reference=None if reference is None else Path(reference),
        force=force,
        options=own_options(found, own) if options is None else options,
    )
    exporter = found.load_exporter()
    exporter.progress = progress
    return exporter.export(request, tell)


def own_options(target: Target, given: Mapping[str, object]) -> TargetOptions:
    """The target's own options from keywords; ConfigError for one that is another target's."""
    known = [option.name for option in options_of(target.options)]
    foreign = {name for name in given if name not in known}
    having = {
        name: [
            other.name
            for other in targets().values()
            if name in {one.name for one in options_of(other.options)}
        ]
        for name in sorted(foreign)
    }
    for owners in filter(None, having.values()):
        listed = ", ".join(name for name, others in having.items() if others == owners)
        have = f"target {owners[0]} has" if len(owners) == 1 else f"targets {' and '.join(owners)} have"
        raise ConfigError(f"{listed}: only {have} this; target is {target.name!r}")
    return target.options(**given)
