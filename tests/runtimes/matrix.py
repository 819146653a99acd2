"""Runs bundles of the trained examples in every runtime and writes the table of `docs/runtimes.md`.

    make runtimes
    make runtimes RUNTIMES="--only onnxruntime==1.16.3 --models digits-expert"
    make runtimes RUNTIMES="--without node"

Environments and bundles are kept in build/runtimes/. Exit status 1 if a cell fails or could not be run.
A part of the table goes to build/runtimes/runtimes.md; only a whole run replaces the page.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from bundles import FORMS, MODELS, ROOT, Expected, Reference, make_bundle, read_pictures
from cells import PATIENCE_S, Failed, run
from environments import FOLDER, NotRun, environment
from judging import judge
from page import Cell, page, title
from runtimes import RUNTIMES, Runtime, chosen

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.bundle.session import kernel_warnings
from morvit_deploy.errors import MorvitError

PAGE = ROOT / "docs" / "runtimes.md"
BUNDLES = FOLDER / "bundles"
Commands = dict[Runtime, list[str] | NotRun]


def make_commands(runtimes: Sequence[Runtime]) -> Commands:
    """Return the interpreter of each runtime's environment, or why there is none."""
    commands: Commands = {}
    for runtime in runtimes:
        print(f"environment of {runtime.name}", file=sys.stderr)
        try:
            commands[runtime] = environment(runtime)
        except NotRun as reason:
            print(f"  not run: {reason}", file=sys.stderr)
            commands[runtime] = reason
    return commands


def cells_of(
    model: str, forms: Sequence[str], commands: Commands, given: argparse.Namespace
) -> Iterator[Cell]:
    """Export each form of a model and yield its cells."""
    pictures = read_pictures(model, given.pictures)
    reference = Reference(model, pictures)
    for form in forms:
        print(f"exporting {model}, {form}", file=sys.stderr)
        try:
            bundle = make_bundle(model, form, BUNDLES)
        except MorvitError as error:
            text = f"FAILED: not exported: {str(error).splitlines()[0]}"
            yield from (Cell(model, form, runtime, text, False) for runtime in commands)
            continue
        fill = partial(cell_of, model, form, bundle, pictures, *reference.expected(bundle), given.time_limit)
        with ThreadPoolExecutor(given.jobs) as pool:
            yield from pool.map(fill, commands, commands.values())


def cell_of(
    model: str,
    form: str,
    bundle: Path,
    pictures: Pixels,
    manifest: Manifest,
    expected: Expected,
    patience_s: float,
    runtime: Runtime,
    command: list[str] | NotRun,
) -> Cell:
    """Run one bundle in one runtime and judge what it returned."""
    cell = partial(Cell, model, form, runtime)
    if isinstance(command, NotRun):
        return cell(f"not run: {command}", False)
    try:
        ran = run(runtime, command, bundle, pictures, patience_s)
    except Failed as reason:
        return cell(f"FAILED: {reason}", False)
    found = judge(manifest, expected, ran.outputs)
    problems = list(found.problems)
    if not ran.version.startswith(runtime.version):
        problems.append(f"ran in version {ran.version}")
    if problems and kernel_warnings(manifest.lowering):
        problems.append("int8 products saturate on this processor")
    text = f"FAILED: {'; '.join(problems)}" if problems else f"{found.max_abs:.1e}"
    return cell(text, not problems, found.images)


def asked() -> argparse.Namespace:
    """The command line; it ends with a message if a name is unknown."""
    parser = argparse.ArgumentParser(
        prog="make runtimes", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    named = "a package, a package==version, or node; may be repeated"
    option("--only", action="append", default=[], metavar="RUNTIME", help=named)
    option("--without", action="append", default=[], metavar="RUNTIME", help=named)
    option("--models", nargs="+", choices=MODELS, default=[*MODELS])
    option("--forms", nargs="+", choices=[*FORMS], default=[*FORMS])
    option("--pictures", type=_positive, metavar="N", help="evenly spaced test pictures (default: all)")
    default = "(default: %(default)s)"
    option(
        "--time-limit", type=_positive, default=PATIENCE_S, metavar="S", help=f"seconds for a cell {default}"
    )
    option("--jobs", type=_positive, default=2, metavar="N", help=f"cells at a time {default}")
    given = parser.parse_args()
    try:
        given.runtimes = chosen(given.only, given.without)
    except ValueError as error:
        parser.error(str(error))
    if not given.runtimes:
        parser.error("--only and --without leave no runtime")
    return given


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number from 1")
    return int(text)


def is_whole(given: argparse.Namespace) -> bool:
    """Whether every cell of the page is run."""
    everything = [*MODELS], [*FORMS], RUNTIMES, None
    return (given.models, given.forms, given.runtimes, given.pictures) == everything


def main() -> int:
    """Make, run, write; 0 if every cell is green."""
    given = asked()
    commands = make_commands(given.runtimes)
    cells: list[Cell] = []
    for model in given.models:
        for cell in cells_of(model, given.forms, commands, given):
            print(f"{cell.model:<14}{cell.form:<9}{title(cell.runtime):<31}{cell.text}", flush=True)
            cells.append(cell)
    written = PAGE if is_whole(given) else FOLDER / "runtimes.md"
    words = "" if is_whole(given) else f' RUNTIMES="{" ".join(sys.argv[1:])}"'
    count = given.pictures or len(read_pictures(given.models[0]))
    written.write_text(page(cells, f"make runtimes{words}", count), encoding="utf-8")
    record = [asdict(cell) for cell in cells]
    (FOLDER / "runtimes.json").write_text(json.dumps(record, indent=1) + "\n")
    bad = int(np.sum([not cell.passed for cell in cells]))
    print(f"{len(cells) - bad} of {len(cells)} cells are green; {written.relative_to(ROOT)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
