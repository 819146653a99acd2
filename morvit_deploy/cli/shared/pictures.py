"""The line that says which files of a folder are used as images, and what in them is not."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.cli.shared.console import note, warn

if TYPE_CHECKING:
    from morvit_deploy.bundle.images import ImageFolder


def say_folder(folder: Path, source: Path, *, exif: bool) -> dict[str, Any] | None:
    """Print what is used of a folder for a checkpoint, with labels; returns the same for `--json`.

    None for what is no folder, which the command itself reports, after wrong options.
    """
    if not os.path.isdir(folder):  # noqa: PTH112  # False for a name that is too long, too
        return None
    from morvit_deploy.bundle.images import open_images
    from morvit_deploy.model.config import load_config

    return say_opened(open_images(folder, load_config(source), exif=exif))


def say_opened(opened: ImageFolder) -> dict[str, Any]:
    """Print what is used of an opened folder."""
    paths = [entry.path for entry in opened.entries]
    return say_files([opened.folder], paths, opened.skipped, exif=opened.exif, unlabeled=opened.unlabeled)


def say_listed(given: Sequence[Path], *, exif: bool) -> tuple[list[Path], dict[str, Any]]:
    """Print what is used of files and folders, whatever their classes; returns the files, too."""
    from morvit_deploy.exporters.prediction import pictures_in

    paths, skipped = pictures_in(given)
    return paths, say_files(given, paths, skipped, exif=exif)


def say_files(
    given: Sequence[Path], paths: Sequence[Path], skipped: Counter[str], *, exif: bool, unlabeled: str = ""
) -> dict[str, Any]:
    """Print one line of what was taken and skipped, and a warning for what reading the images ignores."""
    from morvit_deploy.bundle.images import remarks_on
    from morvit_deploy.bundle.listing import described
    from morvit_deploy.report import numbered

    taken = sum(not os.path.isdir(path) for path in paths)  # noqa: PTH112  # a folder without images stands for itself
    places = ", ".join(str(place) for place in given if os.path.isdir(place))  # noqa: PTH112  # False for a long name
    if places:
        left_out = f"; skipped {described(skipped)}" if skipped else ""
        note(f"{numbered(taken, 'image')} of {places}{left_out}{unlabeled and f'; {unlabeled}'}")
    remarks = remarks_on(paths, exif=exif)
    warn(remarks)
    return {"taken": taken, "skipped": dict(sorted(skipped.items())), "exif": exif, "remarks": remarks}
