"""Splits the user's pictures into some for verification and others for calibration. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from morvit_deploy.bundle.images import ImageFolder, open_images
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.exporters.request import Request
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.model.choices import PRECISIONS
from morvit_deploy.model.config import load_config


@dataclass(frozen=True)
class Pictures:
    """Pictures of the user's folder."""

    verifying: Pixels | None = None  # (n, height, width, 3)
    calibrating: ImageFolder | None = None  # that int8 ranges and fp16 probes come from


def read_pictures(request: Request) -> Pictures:
    """Pictures of the request's folder, if it has one. ImageError for a folder that cannot be used."""
    if request.images is None:
        return Pictures()
    config = load_config(request.checkpoint)
    how = {"upscale": request.upscale, "exif": request.exif}
    if not find_target(request.target).calibrates or PRECISIONS[request.precision].calibration == "no":
        folder = open_images(request.images, config, limit=request.limit, **how)
        return Pictures(folder.all())
    limit = request.limit + request.calibration_limit
    both = open_images(request.images, config, limit=limit, **how)
    verifying, calibrating = held_apart(both, request.limit, request.calibration_limit)
    return Pictures(verifying.all(), calibrating)


def held_apart(folder: ImageFolder, limit: int, calibration_limit: int) -> tuple[ImageFolder, ImageFolder]:
    """Evenly spaced pictures for verification, and others for calibration.

    With fewer than twice `limit`, calibration uses all of them: enough images matter more for ranges than separate
    ones.
    """
    count = len(folder)
    numbers = np.linspace(0, count - 1, min(limit, count)).astype(int).tolist()
    verifying = tuple(folder.entries[number] for number in numbers)
    others = tuple(entry for entry in folder.entries if entry not in verifying)
    calibrating = others if count >= 2 * limit else folder.entries
    return replace(folder, entries=verifying), replace(folder, entries=calibrating[:calibration_limit])
