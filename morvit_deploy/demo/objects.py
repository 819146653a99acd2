"""The number of objects of each picture, from a column of labels.csv. No torch."""

from __future__ import annotations

import csv

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.images import ImageFolder
from morvit_deploy.bundle.listing import TABLE
from morvit_deploy.errors import ImageError, listed

OBJECTS = "objects"
_LISTED = 5  # rows that a message lists


def read_objects(images: ImageFolder) -> NDArray[np.int64]:
    """The number of objects of each picture (n,), from the column `objects` of labels.csv; ImageError."""
    path = images.folder / TABLE
    if not path.is_file():
        raise ImageError(f"{path} is missing; expected a table with the columns file, label and {OBJECTS}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = {row["file"]: row.get(OBJECTS) for row in csv.DictReader(file)}
    found = [rows.get(entry.path.relative_to(images.folder).as_posix()) for entry in images.entries]
    wrong = [
        f"{entry.path.name}: got {number!r}"
        for entry, number in zip(images.entries, found, strict=True)
        if not (number or "").isdecimal()
    ]
    if wrong:
        raise ImageError(
            f"{path}: expected the column {OBJECTS!r} with the number of objects of each picture:\n"
            f"{listed(wrong, _LISTED)}"
        )
    return np.array([int(number or 0) for number in found])
