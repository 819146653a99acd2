"""The report inside a result's JSON file, from which `report` makes a page without measuring again.

A file may come from anywhere: its tables are text, which pages escape, and its drawings may have nothing but shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from morvit_deploy.errors import ConfigError
from morvit_deploy.files import OWN_SVG
from morvit_deploy.report import Picture, Report, Table
from morvit_deploy.strict_json import read_object

KEY = "report"
FORMATS = ("morvit-bench/", "morvit-compare/", "morvit-fleet/")
_SVG = "http://www.w3.org/2000/svg"
_SHAPES = {f"{{{_SVG}}}{name}" for name in ("svg", "g", "rect", "text", "line", "circle", "polyline", "path")}
_ATTRIBUTES = {
    "viewBox", "width", "height", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "d", "points", "fill", "stroke",
    "stroke-dasharray", "stroke-width", "font-family", "font-size", "font-weight", "text-anchor", "transform",
    "opacity",
}  # fmt: skip  # of the drawings that are made here


def stored(report: Report) -> dict[str, Any]:
    """The report as JSON; pictures that are no drawings are left out."""
    picture = report.picture and _stored_picture(report.picture)
    parts = [_stored_part(part) for part in report.parts]
    return {
        "title": report.title,
        "result": report.result,
        "picture": picture,
        "parts": [part for part in parts if part is not None],
    }


def _stored_part(part: Table | Picture) -> dict[str, Any] | None:
    if isinstance(part, Picture):
        return _stored_picture(part)
    rows = [list(row) for row in part.rows]
    return {"title": part.title, "columns": list(part.columns), "rows": rows, "numeric": list(part.numeric),
            "caption": part.caption}  # fmt: skip  # two lines read better than seven


def _stored_picture(picture: Picture) -> dict[str, Any] | None:
    if picture.content is None or picture.path.suffix != ".svg":
        return None
    return {"title": picture.title, "caption": picture.caption, "svg": picture.content.decode()}


def read_report(path: Path) -> Report:
    """The report of a result that `bench` or `compare` wrote; ConfigError for anything else."""
    found = read_object(path, advice="give a file that `bench -o` or `compare -o` wrote")
    if not str(found.get("format", "")).startswith(FORMATS):
        raise ConfigError(
            f"{path}: got format {found.get('format')!r}, expected a result of `bench -o` or `compare -o`"
        )
    if KEY not in found:
        raise ConfigError(
            f"{path} holds no report: it was written by an earlier version, or a device was lost while it was "
            "measured; measure again with this version"
        )
    try:
        return _report(found[KEY])
    except (AttributeError, KeyError, TypeError, ValueError, ElementTree.ParseError) as error:
        raise ConfigError(f"{path}: its report is damaged ({error}); measure again") from error


def _report(found: Mapping[str, Any]) -> Report:
    picture = found["picture"]
    parts = [_picture(part) if "svg" in part else _table(part) for part in found["parts"]]
    return Report(
        _text(found["title"]), parts, _text(found["result"]), None if picture is None else _picture(picture)
    )


def _table(found: Mapping[str, Any]) -> Table:
    columns = tuple(map(_text, found["columns"]))
    rows = [tuple(map(_text, row)) for row in found["rows"]]
    if any(len(row) != len(columns) for row in rows) or not {*found["numeric"]} <= {*range(len(columns))}:
        raise ValueError(f"the rows of {found['title']!r} do not fit its columns")
    return Table(_text(found["title"]), columns, rows, tuple(found["numeric"]), _text(found["caption"]))


def _picture(found: Mapping[str, Any]) -> Picture:
    content = _drawing(_text(found["svg"])).encode()
    title, caption = _text(found["title"]), _text(found["caption"])
    return Picture(title, Path("picture.svg"), caption, content, chart=True, page_only=True)


def _drawing(text: str) -> str:
    """The drawing written anew from its shapes; ValueError where it holds anything else."""
    text = text.replace(OWN_SVG, "")
    if "<!" in text or "<?" in text:  # entities
        raise ValueError("a drawing has declarations")
    root = ElementTree.fromstring(text)
    for element in root.iter():
        further = {name for name, value in element.items() if name not in _ATTRIBUTES or _calls(name, value)}
        if element.tag not in _SHAPES or further:
            raise ValueError(f"a drawing has {element.tag} {sorted(further)}, expected shapes and text")
    ElementTree.register_namespace("", _SVG)
    return ElementTree.tostring(root, encoding="unicode")


def _calls(name: str, value: str) -> bool:
    """Whether a value could name an address, as `url(…)` does; an escape could hide one."""
    return "\\" in value or ("(" in value and name != "transform")


def _text(found: object) -> str:
    if not isinstance(found, str):
        raise TypeError(f"got {type(found).__name__}, expected text")
    return found
