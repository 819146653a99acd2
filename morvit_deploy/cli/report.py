"""`morvit-deploy report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import note
from morvit_deploy.cli.shared.derived import Arg
from morvit_deploy.cli.shared.groups import OUTPUT, Force
from morvit_deploy.cli.shared.pages import check_page, write_page
from morvit_deploy.exporters.options import Help


@command(
    "report",
    "morvit-deploy report table2.json -o table2.html",
    "morvit-deploy report bench.json -o bench.md",
)
def report(
    result: Annotated[Path, Arg("JSON file that `bench -o` or `compare -o` wrote.", "RESULT.json")],
    *,
    out: Annotated[
        Path | None,
        Help("Page to write: .html or .md (default: RESULT.html).", "FILE", short="-o", panel=OUTPUT),
    ] = None,
    force: Force = False,
) -> None:
    """Make a page of a result: the outcome in a sentence, a picture, all tables, conditions, and the command.

    The page is one file: it opens without a network, on a phone and in dark mode, and can be printed.
    """
    from morvit_deploy.cli.shared.stored import read_report

    place = out or result.with_suffix(".html")
    check_page(place, force=force, inputs=(result,))
    write_page(place, read_report(result), force=force)
    note(f"wrote {place}")
