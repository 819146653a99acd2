"""An image folder as batches of pixels: flat, with `labels.csv`, or with a subfolder for each class. No torch."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morvit_deploy.bundle.pixels import Pixels, read_image
from morvit_deploy.errors import ImageError
from morvit_deploy.model.config import Config

FRONT = ".pareto.png"  # calibrate's own picture, if it was written among the photos
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif"}


@dataclass(frozen=True)
class Entry:
    """One picture and its class, if known."""

    path: Path
    label: int | None


@dataclass(frozen=True)
class ImageFolder:
    """The pictures of a folder, in a fixed order."""

    folder: Path
    entries: tuple[Entry, ...]
    config: Config
    upscale: bool = False

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def labels(self) -> list[int] | None:
        """A class for every picture, or None if any has none."""
        labels = [entry.label for entry in self.entries if entry.label is not None]
        return labels if len(labels) == len(self.entries) else None

    def read(self, entry: Entry) -> Pixels:
        """uint8 (height, width, 3)."""
        return read_image(entry.path, self.config.preprocess, self.config.image_size, upscale=self.upscale)

    def batches(self, size: int) -> Iterator[tuple[tuple[Entry, ...], Pixels]]:
        """Entries and their pixels uint8 (n, height, width, 3), `size` at a time: memory stays constant."""
        for start in range(0, len(self.entries), size):
            part = self.entries[start : start + size]
            yield part, np.stack([self.read(entry) for entry in part])

    def all(self) -> Pixels:
        """Every picture at once, uint8 (n, height, width, 3)."""
        return np.stack([self.read(entry) for entry in self.entries])


def open_images(
    folder: str | Path, config: Config, *, limit: int | None = None, seed: int = 0, upscale: bool = False
) -> ImageFolder:
    """List the pictures of `folder`; a seeded random subset when there are more than `limit`.

    Classes come from `labels.csv` (header file,label) or from subfolder names; a label is a class name or
    number of the checkpoint. ImageError when there are no pictures or a label is unknown.
    """
    folder = Path(folder)
    if limit is not None and limit < 1:
        raise ImageError(f"limit: got {limit}, expected at least 1 image")
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder of images")
    entries = _listed(folder, config) if (folder / "labels.csv").is_file() else _found(folder, config)
    if not entries:
        raise ImageError(f"{folder} holds no images ({', '.join(sorted(SUFFIXES))})")
    if limit is not None and limit < len(entries):
        chosen = np.random.default_rng(seed).choice(len(entries), size=limit, replace=False)
        entries = [entries[i] for i in sorted(chosen)]
    return ImageFolder(folder, tuple(entries), config, upscale)


def _listed(folder: Path, config: Config) -> list[Entry]:
    path = folder / "labels.csv"
    try:
        rows = list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{path} is not a UTF-8 CSV file: {error}") from None
    if not rows or not all(row.get("file") and row.get("label") for row in rows):
        raise ImageError(f"{path}: expected a header `file,label` and a file and a label in each row")
    outside = [
        row["file"] for row in rows if Path(row["file"]).is_absolute() or ".." in Path(row["file"]).parts
    ]
    if outside:
        raise ImageError(
            f"{path}: got {outside[0]!r}, expected names inside the folder ({len(outside)} are not)"
        )
    return [Entry(folder / row["file"], _class_of(row["label"], config, path)) for row in rows]


def _found(folder: Path, config: Config) -> list[Entry]:
    entries = []
    classes = _names_classes(folder, config)
    for path in picture_files(folder):
        inside = path.relative_to(folder).parts
        label = _class_of(inside[0], config, folder) if len(inside) > 1 and classes else None
        entries.append(Entry(path, label))
    return entries


def picture_files(folder: Path) -> list[Path]:
    """The image files in a folder and its subfolders, sorted; detected from their suffixes."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix.lower() in SUFFIXES and not path.name.endswith(FRONT)
    ]


def _names_classes(folder: Path, config: Config) -> bool:
    """Are the subfolders named by class? Otherwise they mean nothing."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    others = [name for name in names if _number(name, config) is None]
    if others and len(others) < len(names):
        raise ImageError(
            f"{folder}: some subfolders are classes of the checkpoint and some are not ({', '.join(others[:5])}); "
            "name all by class, or move the others away"
        )
    return bool(names) and not others


def _class_of(label: str, config: Config, where: Path) -> int:
    number = _number(label, config)
    if number is None:
        known = (
            f"one of {', '.join(config.labels[:5])} …" if config.labels else f"0 … {config.num_classes - 1}"
        )
        raise ImageError(f"{where}: got label {label!r}, expected {known}")
    return number


def _number(label: str, config: Config) -> int | None:
    if config.labels and label in config.labels:
        return config.labels.index(label)
    return int(label) if label.isdecimal() and len(label) < 10 and int(label) < config.num_classes else None
