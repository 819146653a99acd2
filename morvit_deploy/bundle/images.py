"""An image folder as batches of pixels: flat, with `labels.csv`, or with a subfolder for each class. No torch."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from morvit_deploy.bundle.labels import classes_of_folders, read_table
from morvit_deploy.bundle.listing import SUFFIXES, TABLE, described, list_pictures
from morvit_deploy.bundle.opening import PEEKED, is_animated, is_turned
from morvit_deploy.bundle.pixels import Pixels, read_image
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Config
from morvit_deploy.report import numbered


@dataclass(frozen=True)
class Entry:
    """One picture and its class, if known."""

    path: Path
    label: int | None


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder, in a fixed order, and what was left out of it."""

    folder: Path
    entries: tuple[Entry, ...]
    config: Config
    upscale: bool = False
    exif: bool = False  # are pictures turned by their EXIF orientation?
    skipped: Counter[str] = field(default_factory=Counter, compare=False)  # files, by reason
    unlabeled: str = ""  # why pictures have no class

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labels(self) -> list[int] | None:
        """A class for every picture, or None if any has none."""
        labels = [entry.label for entry in self.entries if entry.label is not None]
        return labels if len(labels) == len(self.entries) else None

    def read(self, entry: Entry) -> Pixels:
        """uint8 (height, width, 3)."""
        how = {"upscale": self.upscale, "exif": self.exif}
        return read_image(entry.path, self.config.preprocess, self.config.image_size, **how)

    def batches(self, size: int) -> Iterator[tuple[tuple[Entry, ...], Pixels]]:
        """Entries and their pixels uint8 (n, height, width, 3), `size` at a time: memory stays constant."""
        for start in range(0, len(self.entries), size):
            part = self.entries[start : start + size]
            yield part, np.stack([self.read(entry) for entry in part])

    def all(self) -> Pixels:
        """Every picture at once, uint8 (n, height, width, 3)."""
        return np.stack([self.read(entry) for entry in self.entries])


def open_images(
    folder: str | Path,
    config: Config,
    *,
    limit: int | None = None,
    seed: int = 0,
    upscale: bool = False,
    exif: bool = False,
) -> ImageFolder:
    """List the pictures of `folder`; a seeded random subset when there are more than `limit`.

    Classes come from `labels.csv` (header file,label) or from subfolder names; a label is a class name or
    number of the checkpoint. With `exif`, pictures are turned by their EXIF orientation. ImageError when there are
    no pictures, or a label is unknown or ambiguous.
    """
    folder = Path(folder)
    if limit is not None and limit < 1:
        raise ImageError(f"limit: got {limit}, expected at least 1 image")
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder of images")
    has_table = os.path.lexists(folder / TABLE)
    entries, skipped, unlabeled = (_listed if has_table else _found)(folder, config)
    if limit is not None and limit < len(entries):
        chosen = np.random.default_rng(seed).choice(len(entries), size=limit, replace=False)
        entries = [entries[i] for i in sorted(chosen)]
    return ImageFolder(folder, tuple(entries), config, upscale, exif, skipped, unlabeled)


def remarks_on(paths: Sequence[Path], *, exif: bool) -> list[str]:
    """A sentence for what the headers of pictures say and reading ignores: orientation, further frames.

    At most PEEKED headers are read.
    """
    peeked = paths[:PEEKED]
    among = numbered(len(peeked), "image") if len(peeked) == len(paths) else f"the first {len(peeked)} images"
    remarks = []
    if not exif and (turned := sum(map(is_turned, peeked))):
        remarks.append(
            f"the EXIF orientation of {turned} of {among} is not applied, as in training pipelines; --exif turns "
            "images upright"
        )
    if animated := sum(map(is_animated, peeked)):
        remarks.append(f"only the first frame or page is used of {animated} of {among}")
    return remarks


_Entries = tuple[list[Entry], Counter[str], str]


def _listed(folder: Path, config: Config) -> _Entries:
    """The pictures that labels.csv names; others in the folder are left out."""
    entries = [Entry(path, label) for path, label in read_table(folder / TABLE, config)]
    listing = list_pictures(folder)
    if others := len({*listing.files} - {entry.path for entry in entries}):
        listing.skipped[f"not in {TABLE}"] = others
    return entries, listing.skipped, ""


def _found(folder: Path, config: Config) -> _Entries:
    """All pictures, with classes where the subfolders are named by class."""
    listing = list_pictures(folder)
    if not listing.files:
        left_out = f"; skipped {described(listing.skipped)}" if listing.skipped else ""
        raise ImageError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}){left_out}")
    inside = [path.relative_to(folder).parts for path in listing.files]
    names = sorted({parts[0] for parts in inside if len(parts) > 1})
    classes = classes_of_folders(folder, names, config)
    labels = [classes.get(parts[0]) if len(parts) > 1 else None for parts in inside]
    entries = [Entry(path, label) for path, label in zip(listing.files, labels, strict=True)]
    unlabeled = ""
    if classes and None in labels:
        unlabeled = f"{labels.count(None)} lie outside the class folders, so there is no top-1"
    elif names and not classes:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
        unlabeled = f"no subfolder ({shown}) is named by a class, so there are no labels"
    return entries, listing.skipped, unlabeled
