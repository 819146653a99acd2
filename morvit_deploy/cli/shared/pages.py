"""A report as a page of one file, HTML or Markdown, and the command that repeats what it shows."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.errors import OutputError
from morvit_deploy.files import OWN_SVG, check_files, is_own_page, no_file, write_text

if TYPE_CHECKING:
    from morvit_deploy.report import Picture, Report, Table

OWN = OWN_SVG  # the comment that our drawings and pages begin with
SUFFIXES = (".html", ".md")


def typed() -> str:
    """The command line as it was typed, for a shell."""
    return shlex.join(["morvit-deploy", *sys.argv[1:]])


def with_command(report: Report, warnings: Sequence[str] = ()) -> Report:
    """The report with its warnings and the command that repeats it, for a page or a file.

    On a terminal both are above the output.
    """
    from morvit_deploy.report import Report, Table

    doubts = [Table("Warnings", ("warning",), [(text,) for text in warnings])] if warnings else []
    again = Table("To repeat it", ("command",), [(typed(),)])
    return _behind_pictures(
        Report(report.title, [*report.parts, again], report.result, report.picture), doubts
    )


def _behind_pictures(report: Report, more: Sequence[Table | Picture]) -> Report:
    """The report with further parts after the pictures that it begins with."""
    from morvit_deploy.report import Report, Table

    at = next((number for number, part in enumerate(report.parts) if isinstance(part, Table)), 0)
    parts = [*report.parts[:at], *more, *report.parts[at:]]
    return Report(report.title, parts, report.result, report.picture)


def check_page(path: Path | None, *, force: bool, inputs: Iterable[Path | None] = ()) -> None:
    """OutputError unless the page can be written, before anything is measured; None is no page."""
    if path is None:
        return
    if path.suffix not in SUFFIXES:
        raise OutputError(
            f"{path}: got a report that ends in {path.suffix!r}, expected {' or '.join(SUFFIXES)}"
        )
    check_files([path], force=force, replaces=is_own_page, inputs=inputs)


def write_page(path: Path | None, report: Report, *, force: bool) -> None:
    """Write the report completely or not at all; with `force`, in the place of another page of ours.

    None is no page.
    """
    if path is None:
        return
    text = report.html() if path.suffix == ".html" else report.markdown()
    write_text(path, f"{OWN}\n{text}", replaces=is_own_page if force else no_file)


def with_depths(report: Report, bundle: Path, images: Path | None, *, upscale: bool, exif: bool) -> Report:
    """The report with depth maps of a few of the pictures that were fed, before its tables."""
    if images is None:
        return report
    from morvit_deploy.measuring.depths import depth_picture

    drawn = depth_picture(bundle, images, upscale=upscale, exif=exif)
    return _behind_pictures(report, [drawn] if drawn else [])
