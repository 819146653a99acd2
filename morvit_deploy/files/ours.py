"""Which files this tool wrote: JSON of its formats, pictures that name it, and what a folder's marker lists."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from morvit_deploy.errors import ConfigError
from morvit_deploy.strict_json import read_json

Lists = Callable[
    [Path, dict[str, Any]], Iterable[str]
]  # folder, content of its marker -> names of our files in it
Replaces = Callable[[Path], bool]  # may this file be replaced?


OWN_PNG = {"Software": "morvit-deploy"}  # text in our pictures
OWN_SVG = "<!-- morvit-deploy -->"  # the same in a drawing
LITTER = (
    ".DS_Store",
    "._*",
    "Thumbs.db",
    "desktop.ini",
    "__pycache__",
)  # of systems and Python; nobody's data
_PNG_HEAD = 4096  # bytes, in which the texts are


def own_list(folder: Path, marker: dict[str, Any]) -> Iterator[str]:
    """The names that a marker lists under `files`, as strings or as objects with a `path`."""
    listed = marker.get("files", ())
    for one in listed if isinstance(listed, list) else ():
        name = one.get("path") if isinstance(one, dict) else one
        if isinstance(name, str):
            yield name


def files_in(folder: Path) -> list[str]:
    """Names of all files in a folder of ours, for the `files` of its marker."""
    return sorted(foreign_files(folder, ()))


def is_ours(marker: Path, format: str = "morvit") -> bool:
    """Is it JSON of a format of ours that begins so? Other programs write a config.json or manifest.json, too."""
    content = read_ours(marker)
    return content is not None and str(content["format"]).startswith(format)


def read_ours(path: Path) -> dict[str, Any] | None:
    """A JSON object of one of our formats; None for anything else."""
    try:
        content = read_json(path) if path.is_file() else None  # a pipe would not end
    except (OSError, ConfigError):
        return None
    ours = isinstance(content, dict) and str(content.get("format", "")).startswith("morvit")
    return content if ours else None


def is_own_png(path: Path) -> bool:
    """Is it a picture with the text `OWN_PNG`?"""
    with path.open("rb") as file:
        head = file.read(_PNG_HEAD)
    return head.startswith(b"\x89PNG") and b"tEXtSoftware\0morvit-deploy" in head


def is_own_svg(path: Path) -> bool:
    """Is it a drawing with the comment `OWN_SVG`?"""
    with path.open("rb") as file:
        head = file.read(_PNG_HEAD)
    return head.startswith(b"<svg") and OWN_SVG.encode() in head


def is_own_page(path: Path) -> bool:
    """Is it a report, HTML or Markdown, that begins with the comment `OWN_SVG`?"""
    with path.open("rb") as file:
        return file.read(len(OWN_SVG)) == OWN_SVG.encode()


def of_format(format: str) -> Replaces:
    """Whether a file is JSON of that format."""
    return lambda path: is_ours(path, format)


def any_file(path: Path) -> bool:
    """Every ordinary file may be replaced."""
    return True


def no_file(path: Path) -> bool:
    """No file may be replaced."""
    return False


def foreign_files(folder: Path, known: Iterable[str]) -> Iterator[str]:
    """Names of files in a folder that are neither known nor litter; a link to a folder counts as a file."""
    ours = set(known)
    for place, folders, files in os.walk(folder):
        inside = Path(place)
        folders[:] = [name for name in folders if not _is_litter(name)]
        links = [name for name in folders if (inside / name).is_symlink()]
        for name in sorted([*files, *links]):
            relative = (inside / name).relative_to(folder).as_posix()
            if relative not in ours and not _is_litter(name):
                yield relative


def _is_litter(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in LITTER)
