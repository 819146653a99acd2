"""The one rule for which files of a folder are pictures; every command that takes a folder uses it. No torch.

Subfolders are listed too, and links to folders are followed, each folder once. Hidden files and folders, links to
nothing, pipes and devices, and files of other suffixes are skipped, and the listing says so.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from morvit_deploy.bundle import arrays
from morvit_deploy.bundle.opening import FORMATS
from morvit_deploy.errors import ImageError

FRONT = ".pareto.png"  # calibrate's own picture, if it was written among the photos
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes) | {arrays.SUFFIX}
# suffixes of photographs that are not read: their owner expects them to be
PHOTOS = frozenset(
    {
        ".heic",
        ".heif",
        ".avif",
        ".jxl",
        ".jp2",
        ".eps",
        ".pdf",
        ".svg",
        ".psd",
        ".ico",
        ".tga",
        ".dng",
        ".cr2",
    }
    | {".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".exr", ".hdr", ".dcm"}
)
TABLE = "labels.csv"


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder, sorted, and how many files were skipped for which reason."""

    folder: Path
    files: tuple[Path, ...]
    skipped: Counter[str] = field(default_factory=Counter)


def described(skipped: Counter[str]) -> str:
    """What was skipped, and why: `2 hidden, 1 broken link`."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))


def list_pictures(folder: Path) -> Listing:
    """List the pictures of `folder` and its subfolders. ImageError if one of them cannot be read."""
    skipped: Counter[str] = Counter()
    files: list[Path] = []
    folders, links, seen = [folder], list[Path](), set[tuple[int, int]]()
    while folders or links:  # links last, so that none hides the folder that it leads to
        here = folders.pop() if folders else links.pop(links.index(min(links)))
        identity = here.stat()
        if (identity.st_dev, identity.st_ino) in seen:
            skipped["linked folder that is listed already"] += 1
            continue
        seen.add((identity.st_dev, identity.st_ino))
        for entry in _entries(here):
            path = here / entry.name
            if os.path.isdir(path) and not entry.name.startswith("."):  # noqa: PTH112  # False without permission
                (links if entry.is_symlink() else folders).append(path)
            elif (reason := _why_not(entry)) is None:
                files.append(path)
            elif reason:
                skipped[reason] += 1
    return Listing(folder, tuple(sorted(files)), skipped)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ImageError(
            f"cannot list {folder}: {error.strerror}; make it readable, or move it away"
        ) from None


def _why_not(entry: os.DirEntry[str]) -> str | None:
    """Why an entry is skipped; None for a picture, empty for a file of ours."""
    suffix = Path(entry.name).suffix.lower()
    if entry.name.startswith("."):
        return "hidden"
    if entry.name == TABLE or entry.name.endswith(FRONT):
        return ""
    if suffix in PHOTOS:
        return f"{suffix} (not supported; convert to PNG or JPEG)"
    if suffix not in SUFFIXES:
        return "without an image suffix"
    if os.path.isfile(entry.path):  # noqa: PTH113  # False for a circle of links, too
        return None
    return "pipe or device" if os.path.exists(entry.path) else "broken link"  # noqa: PTH110  # the same
