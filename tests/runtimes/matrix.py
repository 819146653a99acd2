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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial

import numpy as np
from bundles import EXAMPLES, FORMS, MODELS, ROOT, Reference, make_bundle, read_pictures
from cells import PATIENCE_S, Failed, run
from environments import FOLDER, NotRun, environment
from judging import Judged, judge
from page import NO_BUNDLE, Cell, page, title
from runtimes import RUNTIMES, Runtime, chosen

from morvit_deploy.bundle.session import kernel_warnings
from morvit_deploy.errors import MorvitError, PrecisionError
from morvit_deploy.exporters.onnx.releases import lowest_of
from morvit_deploy.model.checkpoint import load_checkpoint

PAGE = ROOT / "docs" / "runtimes.md"
BUNDLES = FOLDER / "bundles"
Fill = Callable[[Runtime, list[str]], Judged]
Commands = dict[Runtime, list[str] | NotRun]


class NothingToRun(Exception):
    """Why a cell is empty by right: `needs 1.23` in an older runtime, or no bundle, since it misses its gate."""


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


def make_cells(given: argparse.Namespace, commands: Commands) -> list[Cell]:
    """Export each form of each model, and run its cells while the next form is exported."""
    made: list[Future[Cell]] = []
    with ThreadPoolExecutor(given.jobs) as pool:
        for model in given.models:
            pictures = read_pictures(model, given.pictures)
            reference = Reference(load_checkpoint(EXAMPLES / model), pictures)
            for form in given.forms:
                print(f"bundle of {model}, {form}", file=sys.stderr)
                fill = partial(cell_of, filler(model, form, reference, given.time_limit), model, form)
                made += [pool.submit(fill, runtime, command) for runtime, command in commands.items()]
        return [cell.result() for cell in made]


def filler(model: str, form: str, reference: Reference, patience_s: float) -> Fill | Failed | NothingToRun:
    """Return a function that runs the bundle of a form and judges what a runtime returns, or why there is none."""
    try:
        bundle = make_bundle(model, form, BUNDLES)
    except PrecisionError:
        return NothingToRun(NO_BUNDLE)
    except MorvitError as error:
        return Failed(f"not exported: {str(error).splitlines()[0]}")
    manifest, expected = reference.expected(bundle)

    lowest = lowest_of(bundle, manifest)

    def fill(runtime: Runtime, command: list[str]) -> Judged:
        if runtime.is_older_than(lowest):
            raise NothingToRun(f"needs {lowest}")
        ran = run(runtime, command, bundle, reference.pictures, patience_s)
        found = judge(manifest, expected, ran.outputs)
        more = [] if ran.version.startswith(runtime.version) else [f"ran in version {ran.version}"]
        if found.problems and kernel_warnings(manifest.lowering):
            more.append("int8 products saturate on this processor")
        return replace(found, problems=(*found.problems, *more))

    return fill


def cell_of(
    fill: Fill | Failed | NothingToRun, model: str, form: str, runtime: Runtime, command: list[str] | NotRun
) -> Cell:
    """Return and print one cell of the table."""
    cell = partial(Cell, model, form, runtime)
    try:
        if isinstance(command, NotRun):
            made = cell(f"not run: {command}", False)
        elif isinstance(fill, Exception):
            raise fill
        else:
            found = fill(runtime, command)
            text = f"FAILED: {'; '.join(found.problems)}" if found.problems else scientific(found.max_abs)
            made = cell(text, not found.problems, found.images)
    except NothingToRun as reason:
        made = cell(str(reason), True)
    except Failed as reason:
        made = cell(f"FAILED: {reason}", False)
    print(f"{model:<14}{form:<9}{title(runtime):<31}{made.text}", flush=True)
    return made


def scientific(value: float) -> str:
    """As in 2.8e-6."""
    digits, power = f"{value:.1e}".split("e")
    return f"{digits}e{int(power)}"


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
    cells = make_cells(given, commands)
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
