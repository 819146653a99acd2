"""The number of objects of each picture, from a column of labels.csv. No torch."""

from __future__ import annotations

import csv
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.images import ImageFolder
from morvit_deploy.bundle.listing import TABLE
from morvit_deploy.errors import ImageError, listed

OBJECTS = "objects"
_LISTED = 5  # rows that a message lists
_DIGITS = 6  # of a number of objects


def read_objects(images: ImageFolder) -> NDArray[np.int64]:
    """The number of objects of each picture (n,), from the column `objects` of labels.csv; ImageError."""
    path = images.folder / TABLE
    if not path.is_file():
        raise ImageError(f"{path} is missing; expected a table with the columns file, label and {OBJECTS}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = {PurePosixPath(row["file"]): row.get(OBJECTS) or "" for row in csv.DictReader(file)}
    files = [PurePosixPath(entry.path.relative_to(images.folder).as_posix()) for entry in images.entries]
    found = [rows.get(file, "") for file in files]
    wrong = [
        f"{file}: got {number!r}"
        for file, number in zip(files, found, strict=True)
        if not number.isdecimal() or len(number) > _DIGITS
    ]
    if wrong:
        raise ImageError(
            f"{path}: expected the column {OBJECTS!r} with the number of objects of each picture:\n"
            f"{listed(wrong, _LISTED)}"
        )
    return np.array([int(number) for number in found], dtype=np.int64)
