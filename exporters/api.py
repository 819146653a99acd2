"""`export` as a Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bundle.images import ImageFolder, open_images
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.base import Exported
from morvit_deploy.exporters.coreml.options import CoremlAsked
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.exporters.trt.options import TrtAsked
from morvit_deploy.model.config import load_config

DEFAULT_LIMIT = 32  # images of a folder to verify with
OWN: dict[str, Any] = {"coreml": CoremlAsked, "trt": TrtAsked}  # a target's own options
CALIBRATION_LIMIT = 256  # further images of it that int8 ranges and fp16 probes come from


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    target: str = "onnx",
    images: str | Path | None = None,
    limit: int = DEFAULT_LIMIT,
    calibration_limit: int = CALIBRATION_LIMIT,
    upscale: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    **options: Any,
) -> Exported:
    """Export a checkpoint folder to a verified bundle at `out`.

    It is verified on at most `limit` pictures of the folder `images`, or on synthetic ones. Below fp32 it is
    calibrated on at most `calibration_limit` others of the folder. `options` are those of `Request`: plan, dispatch,
    min_agreement, batch, input, with_depth, form, force, precision, int8_flavor, calibration, smooth, max_drop,
    allow_worse; with target `trt` those of `TrtAsked`: flavor, compute_capability, hardware_compatible,
    version_compatible, max_batch, workspace_mib; and with target `coreml` those of `CoremlAsked`: ios, layout,
    select, attention, weights, classifier, author, license.
    `tell` hears each stage. Raises ConfigError, PlanError, CheckpointError, ImageError or OutputError on
    bad input, StructureError, ParityError or PrecisionError when a check fails; then nothing is written.
    """
    options = of_target(target, options)
    exporter = find_target(target).load_exporter()
    checkpoint = Path(checkpoint)
    if calibration_limit < 1:
        raise ConfigError(f"calibration_limit: got {calibration_limit}, expected at least 1 image")
    if images is None:
        return exporter.export(Request(checkpoint, Path(out), **options), tell)
    if target == "coreml" or options["precision"] == "fp32":  # Core ML calibrates nothing
        folder = open_images(images, load_config(checkpoint), limit=limit, upscale=upscale)
        return exporter.export(Request(checkpoint, Path(out), images=folder.all(), **options), tell)
    both = open_images(images, load_config(checkpoint), limit=limit + calibration_limit, upscale=upscale)
    judged, fitted = held_apart(both, limit, calibration_limit)
    request = Request(checkpoint, Path(out), images=judged.all(), calibration_images=fitted, **options)
    return exporter.export(request, tell)


def of_target(target: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """`Request`'s options with the target's own precision where none is asked for, and the target's own put together.

    ConfigError for an option of another target.
    """
    rest = dict(options)
    for owner, kind in OWN.items():
        own = {name: rest.pop(name) for name in kind.names() & {*rest}}
        if owner == target:
            rest[owner] = kind(**own)
        elif own:
            raise ConfigError(f"{', '.join(sorted(own))}: only target {owner} has this; target is {target!r}")
    rest["precision"] = rest.get("precision") or find_target(target).precision
    if target == "trt" and rest["precision"] == "int8":
        rest["int8_flavor"] = rest.get("int8_flavor") or "trt"
    return rest


def held_apart(folder: ImageFolder, limit: int, calibration_limit: int) -> tuple[ImageFolder, ImageFolder]:
    """Pictures to verify with, evenly taken, and others to calibrate with.

    Where there are fewer than twice `limit`, calibration has all of them: ranges need images more than the proof
    needs other ones.
    """
    count = len(folder)
    numbers = np.linspace(0, count - 1, min(limit, count)).astype(int).tolist()
    judged = tuple(folder.entries[number] for number in numbers)
    others = tuple(entry for entry in folder.entries if entry not in judged)
    fitted = others if count >= 2 * limit else folder.entries
    return replace(folder, entries=judged), replace(folder, entries=fitted[:calibration_limit])
