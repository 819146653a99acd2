"""Inputs of `bench`: a checked bundle, and pixels in a file for its process. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.links import open_linked
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, digest, synthetic_for
from morvit_deploy.errors import TargetError
from morvit_deploy.model.config import Config

IMAGES = 16  # different pictures, and at least one batch
MOST_SURVEYED = 256  # pictures of a folder, to find the bucket mix of an adaptive bundle
STREAM = 64  # of these are timed; a block is whole passes over them, so every block has the same mix
SYNTHETIC = "synthetic pictures"  # in the conditions, where no folder was given


@dataclass(frozen=True)
class Source:
    """A folder of pictures, or None for synthetic ones; `batch` is for bundles of dynamic batch."""

    images: str | Path | None = None
    upscale: bool = False
    batch: int | None = None
    exif: bool = False  # turn pictures by their EXIF orientation

    @property
    def named(self) -> str:
        """For the conditions."""
        turned = ", turned by their EXIF orientation" if self.exif else ""
        return SYNTHETIC if self.images is None else f"pictures of {self.images}{turned}"


@dataclass(frozen=True)
class Subject:
    """A bundle to measure and its inputs, uint8 (rounds, batch, height, width, 3), as a .npy file."""

    bundle: Path
    manifest: Manifest
    pixels: Path
    batch: int  # images a run
    images: int  # different ones in the file
    inputs_digest: str

    @property
    def rounds(self) -> range:
        """Rounds that hold every picture once."""
        return range(math.ceil(self.images / self.batch))

    @property
    def stream(self) -> range | None:
        """Rounds of a timed pass of an adaptive bundle; None for others, whose runs are all alike."""
        if not self.manifest.plan.adaptive:
            return None
        return self.rounds[: max(1, STREAM // self.batch)]


def prepare(bundle: Path, source: Source, file: Path) -> Subject:
    """Check the bundle and write its inputs to `file`; raises BundleError, ImageError or TargetError."""
    bundle, manifest = open_linked(bundle)
    batch = _batch(bundle, manifest, source.batch)
    enough = (STREAM if source.images is None else MOST_SURVEYED) if manifest.plan.adaptive else IMAGES
    pixels = draw(source, manifest.config, max(enough, batch), shuffled=manifest.plan.adaptive)
    np.save(file, in_rounds(pixels, batch), allow_pickle=False)
    return Subject(bundle, manifest, file, batch, len(pixels), digest(pixels))


def folders_of(bundles: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    """One or several folders as a tuple; TargetError for none."""
    folders = tuple(Path(b) for b in ([bundles] if isinstance(bundles, (str, Path)) else bundles))
    if not folders:
        raise TargetError("got no bundle, expected one or more")
    return folders


def expected_file(pixels: Path) -> Path:
    """The .npz file with the expected logits, features or tokens of a file of pixels."""
    return pixels.with_suffix(".expected.npz")


def draw(source: Source, config: Config, most: int, *, shuffled: bool = False) -> Pixels:
    """uint8 (n, height, width, 3): at most `most` pictures of a folder, or as many synthetic ones.

    Adaptive bundles get them shuffled, as neighbours in a folder are often alike.
    """
    if source.images is None:
        return synthetic_for(config, most)
    how = {"upscale": source.upscale, "exif": source.exif}
    pixels = open_images(source.images, config, limit=most, **how).all()
    return np.random.default_rng(0).permutation(pixels) if shuffled else pixels


def in_rounds(pixels: Pixels, batch: int) -> Pixels:
    """(n, height, width, 3) to (rounds, batch, height, width, 3); the last round is filled from the start."""
    rounds = math.ceil(len(pixels) / batch)
    order = np.arange(rounds * batch) % len(pixels)
    return pixels[order].reshape(rounds, batch, *pixels.shape[1:])


def _batch(bundle: Path, manifest: Manifest, wanted: int | None) -> int:
    if wanted is not None and wanted < 1:
        raise TargetError(f"batch: got {wanted}, expected at least 1")
    if manifest.batch == "dynamic":
        return wanted or 1
    if wanted not in (None, manifest.batch):
        raise TargetError(
            f"got batch {wanted}, but {bundle} was exported for batch {manifest.batch}; "
            "export it again with --batch dynamic"
        )
    return manifest.batch
