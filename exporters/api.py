"""`export` as a Python function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from morvit_deploy.calibration.images import open_images
from morvit_deploy.config import load_config
from morvit_deploy.exporters.base import Exported, Request
from morvit_deploy.exporters.registry import find_target

DEFAULT_LIMIT = 32  # images of a folder to verify with


def export(
    checkpoint: str | Path,
    out: str | Path,
    *,
    target: str = "onnx",
    images: str | Path | None = None,
    limit: int = DEFAULT_LIMIT,
    upscale: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    **options: Any,
) -> Exported:
    """Export a checkpoint folder to a verified bundle at `out`.

    It is verified on at most `limit` pictures of the folder `images`, or on synthetic ones. `options` are those of
    `Request`: plan, dispatch, min_agreement, batch, input, with_depth, form, force. `tell` hears each stage. Raises
    ConfigError, PlanError, CheckpointError, ImageError or OutputError on bad input, StructureError or ParityError
    when a check fails; then nothing is written.
    """
    exporter = find_target(target).load_exporter()
    checkpoint = Path(checkpoint)
    pixels = None
    if images is not None:
        pixels = open_images(images, load_config(checkpoint), limit=limit, upscale=upscale).all()
    return exporter.export(Request(checkpoint, Path(out), images=pixels, **options), tell)
