"""Classes of pictures: of a label, of a row of `labels.csv`, and of the subfolder that a picture is in. No torch."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from morvit_deploy.bundle.opening import why_not_readable
from morvit_deploy.errors import ImageError, listed
from morvit_deploy.model.config import Config

HEADER = ("file", "label")
_LISTED = 5  # rows that a message lists


def class_number(label: str, config: Config) -> int | None:
    """The class that a label names, or whose number it is; None where there is none.

    ImageError for a name that several classes have, as ImageNet's `crane`: only the number says which is meant.
    """
    numbers = [i for i, name in enumerate(config.labels or ()) if name == label]
    if len(numbers) > 1:
        raise ImageError(
            f"label {label!r} is the name of classes {', '.join(map(str, numbers))}; give the class's number instead"
        )
    if numbers:
        return numbers[0]
    return int(label) if label.isdecimal() and len(label) < 10 and int(label) < config.num_classes else None


def expected_labels(config: Config) -> str:
    """What a label may be, for a message."""
    if config.labels:
        return f"one of {', '.join(config.labels[:5])} …, or 0 … {config.num_classes - 1}"
    return f"0 … {config.num_classes - 1}"


def read_table(path: Path, config: Config) -> list[tuple[Path, int]]:
    """The files and classes of a `labels.csv`, in its order. ImageError lists the lines that are wrong."""
    rows = _rows(path)
    problems = [*_outside(rows), *_twice(rows)] or _absent(rows, path.parent)
    found: list[tuple[Path, int]] = []
    for line, file, label in rows if not problems else ():
        try:
            number = class_number(label, config)
        except ImageError as error:
            problems.append(f"line {line}: {error}")
            continue
        if number is None:
            problems.append(f"line {line}: got label {label!r}, expected {expected_labels(config)}")
        else:
            found.append((path.parent / file, number))
    if problems:
        several = f"{len(problems)} wrong rows:\n{listed(problems, _LISTED)}"
        raise ImageError(f"{path}: {problems[0] if len(problems) == 1 else several}")
    return found


def classes_of_folders(folder: Path, names: Sequence[str], config: Config) -> dict[str, int]:
    """The class of each subfolder; empty if none names one. ImageError for a mixture, or an ambiguous name."""
    try:
        numbers = {name: class_number(name, config) for name in names}
    except ImageError as error:
        raise ImageError(f"{folder}: {error}") from None
    known = {name: number for name, number in numbers.items() if number is not None}
    if others := sorted(numbers.keys() - known.keys()) if known else []:
        raise ImageError(
            f"{folder}: some subfolders are classes of the checkpoint and some are not ({', '.join(others[:5])}); "
            "name all by class, or move the others away"
        )
    return known


def _rows(path: Path) -> list[tuple[int, str, str]]:
    """Line, file and label of each row. ImageError if it is not a table with the header `file,label`."""
    if not path.is_file():
        raise ImageError(f"{path} {why_not_readable(path)}")
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        head, *cells = [(reader.line_num, row) for row in reader if row] or [(1, [])]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ImageError(f"{path} is not a UTF-8 CSV file: {error}") from None
    names = head[1]
    if any(names.count(name) != 1 for name in HEADER) or not cells:
        raise ImageError(
            f"{path}: expected a header `file,label`, each once, and a row for each image; got the header "
            f"{','.join(names)!r} and {len(cells)} rows"
        )
    at = [names.index(name) for name in HEADER]
    wrong = [
        line for line, row in cells if len(row) > len(names) or not all(i < len(row) and row[i] for i in at)
    ]
    if wrong:
        raise ImageError(
            f"{path}: expected a header `file,label` and a file and a label in each row; wrong lines: "
            f"{', '.join(map(str, wrong[:_LISTED]))}; put a name that contains a comma in quotes"
        )
    return [(line, row[at[0]], row[at[1]]) for line, row in cells]


def _outside(rows: Sequence[tuple[int, str, str]]) -> list[str]:
    return [
        f"line {line}: got {file!r}, expected a name inside the folder"
        for line, file, _ in rows
        if Path(file).is_absolute() or ".." in Path(file).parts
    ]


def _twice(rows: Sequence[tuple[int, str, str]]) -> list[str]:
    first: dict[PurePosixPath, int] = {}
    problems = []
    for line, file, _ in rows:
        if (before := first.setdefault(PurePosixPath(file), line)) != line:
            problems.append(f"line {line}: {file} is named in line {before} already; keep one of them")
    return problems


def _absent(rows: Sequence[tuple[int, str, str]], folder: Path) -> list[str]:
    """Rows whose file is not there; an empty file is there, and refused when it is read."""
    return [
        f"line {line}: {file} does not exist, or is no file"
        for line, file, _ in rows
        if not os.path.isfile(folder / file)  # noqa: PTH113  # False for a name that is too long, too
    ]
