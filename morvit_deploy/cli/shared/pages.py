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
    from morvit_deploy.report import Report

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
    return Report(report.title, [*doubts, *report.parts, again], report.result, report.picture)


def check_page(path: Path, *, force: bool, inputs: Iterable[Path | None] = ()) -> None:
    """OutputError unless the page can be written, before anything is measured."""
    if path.suffix not in SUFFIXES:
        raise OutputError(
            f"{path}: got a report that ends in {path.suffix!r}, expected {' or '.join(SUFFIXES)}"
        )
    check_files([path], force=force, replaces=is_own_page, inputs=inputs)


def write_page(path: Path, report: Report, *, force: bool) -> None:
    """Write the report completely or not at all; with `force`, in the place of another page of ours."""
    text = report.html() if path.suffix == ".html" else report.markdown()
    write_text(path, f"{OWN}\n{text}", replaces=is_own_page if force else no_file)
