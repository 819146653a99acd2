"""Writes the recipe for engines, `build.json`, and `build.py`, which builds them here or on the device."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.recipe import sha256_of
from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import RECIPE, SCRIPT, TIMING_CACHE


def write_recipe(
    folder: Path,
    files: list[str],
    form: TrtForm,
    *,
    precision: str,
    batch: int | str,
    workspace_mib: int | None,
) -> list[str]:
    """Write both files beside the graphs `files`; returns their names. Every .onnx becomes an engine of its name."""
    recipe: dict[str, Any] = {
        "format": trt_build.RECIPE_FORMAT,
        "precision": precision,
        "flavor": form.flavor,
        "compute_capability": list(form.compute_capability),
        "hardware_compatible": form.hardware_compatible,
        "version_compatible": form.version_compatible,
        "tf32": False,  # its 10-bit mantissa is not the fp32 that was verified
        "workspace_mib": workspace_mib,
        "timing_cache": TIMING_CACHE if form.flavor == "tensorrt" else None,  # RTX's is a no-op
        "files": [
            {"name": name, "bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
            for name in files
        ],
        "engines": [
            {"name": part, "onnx": f"{part}.onnx", "engine": f"{part}.engine", "batch": _batch(batch, form)}
            for part in (name.removesuffix(".onnx") for name in files if name.endswith(".onnx"))
        ],
    }
    (folder / RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    shutil.copyfile(trt_build.__file__, folder / SCRIPT)
    return [RECIPE, SCRIPT]


def _batch(batch: int | str, form: TrtForm) -> int | list[int]:
    """A number, or [min, opt, max] of a dynamic batch, tuned for the largest."""
    if batch != "dynamic":
        return int(batch)
    assert form.max_batch is not None, "`form_of` sets it"
    return [1, form.max_batch, form.max_batch]
