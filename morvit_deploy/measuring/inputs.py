"""What `bench` feeds: a bundle whose files were checked, and pixels in a file that its process reads. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morvit_deploy.bundle import Manifest, open_manifest
from morvit_deploy.calibration.images import open_images
from morvit_deploy.errors import TargetError
from morvit_deploy.pixels import Pixels, digest, synthetic_images

IMAGES = 16  # different pictures in turn, and at least one batch


@dataclass(frozen=True)
class Source:
    """Where the pictures come from: a folder, or synthetic when None; `batch` is for bundles of dynamic batch."""

    images: str | Path | None = None
    upscale: bool = False
    batch: int | None = None


@dataclass(frozen=True)
class Subject:
    """A bundle to measure and its inputs, uint8 (rounds, batch, height, width, 3), as a .npy file."""

    bundle: Path
    manifest: Manifest
    pixels: Path
    batch: int  # images a run
    inputs_digest: str


def prepare(bundle: Path, source: Source, file: Path) -> Subject:
    """Check the bundle and write its inputs to `file`; raises BundleError, ImageError or TargetError."""
    manifest = open_manifest(bundle)
    batch = _batch(bundle, manifest, source.batch)
    count = max(IMAGES, batch)
    if source.images is None:
        pixels = synthetic_images(count, manifest.config.image_size)
    else:
        pixels = open_images(source.images, manifest.config, limit=count, upscale=source.upscale).all()
    np.save(file, in_rounds(pixels, batch), allow_pickle=False)
    return Subject(bundle, manifest, file, batch, digest(pixels))


def in_rounds(pixels: Pixels, batch: int) -> Pixels:
    """(n, height, width, 3) to (rounds, batch, height, width, 3): every picture, then from the start."""
    rounds = math.ceil(len(pixels) / batch)
    order = np.arange(rounds * batch) % len(pixels)
    return pixels[order].reshape(rounds, batch, *pixels.shape[1:])


def _batch(bundle: Path, manifest: Manifest, asked: int | None) -> int:
    if asked is not None and asked < 1:
        raise TargetError(f"batch: got {asked}, expected at least 1")
    if manifest.batch == "dynamic":
        return asked or 1
    if asked not in (None, manifest.batch):
        raise TargetError(
            f"got batch {asked}, but {bundle} was exported for batch {manifest.batch}; "
            "export it again with --batch dynamic"
        )
    return manifest.batch
