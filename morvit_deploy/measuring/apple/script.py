"""The `bench.py` of an emitted project, which measures the bundle beside it. Python ≥ 3.10, numpy and coremltools."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morvit_deploy.errors import BundleError, MorvitError
from morvit_deploy.exporters.coreml.sdk.bundle import read_package
from morvit_deploy.files import check_files, no_file, of_format, write_text
from morvit_deploy.measuring.apple.dispatching import COMPARE, UNITS, chosen_units
from morvit_deploy.measuring.apple.goldens import Goldens, read_golden
from morvit_deploy.measuring.apple.running import DEVICES, Wish, exit_status, look, run_bench
from morvit_deploy.measuring.apple.views import apple_report
from morvit_deploy.strict_json import read_json

PROJECT, PROJECT_FORMAT = "project.json", "morvit-bench-project/1"
BUNDLE, GOLDEN = "bundle", "golden"
WAY_OUT = "Copy this folder to a Mac that has what is missing, and run `python bench.py` there."


def main(project: Path, arguments: Sequence[str]) -> int:
    """Exit status: 0 measured, 1 wrong logits, 2 something is missing or the device was lost, 130 interrupted."""
    options = _parser().parse_args(arguments)
    try:
        return _run(project, options)
    except MorvitError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _run(project: Path, options: argparse.Namespace) -> int:
    out = Path(options.out)
    is_result = of_format("morvit-bench/")
    check_files([out], force=options.force, replaces=is_result)
    fields = {name: getattr(options, name) for name in ("runs", "blocks", "warmup", "phone", "team")}
    wish = Wish(options.device, chosen_units(options.compute_units), **fields)
    assert wish.amount  # before anything is loaded
    tell("checking the bundle")
    package, goldens = read_package(project / BUNDLE), read_goldens(project)
    tell("looking at this machine")
    phone = look(package, wish, WAY_OUT)
    result = run_bench(
        package,
        goldens,
        wish,
        phone,
        inputs=_known(project)["inputs"],
        tell=tell,
    )
    write_text(
        out,
        json.dumps(result.as_dict(), indent=1, allow_nan=False) + "\n",
        replaces=is_result if options.force else no_file,
    )
    print(apple_report(result).markdown())
    for warning in result.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"every raw sample is in {out}", file=sys.stderr)
    return exit_status(result)


def tell(stage: str) -> None:
    """Print what happens now, for people."""
    print(f"… {stage}", file=sys.stderr, flush=True)


def read_goldens(project: Path) -> Goldens:
    """Pictures and expected logits of every bucket; BundleError when they cannot be read."""
    known = _known(project)
    try:
        golden = {name: read_golden(project / GOLDEN / f"{name}.npz") for name in known["buckets"]}
        return Goldens(golden, dict(known["shares"]), str(known["mix"]))
    except (KeyError, TypeError) as error:
        raise BundleError(f"{project / PROJECT} lacks {error}; write the project again") from None


def _known(project: Path) -> dict[str, Any]:
    try:
        known = read_json(project / PROJECT, BundleError, advice="write the project again")
    except OSError as error:
        raise BundleError(f"cannot read {project / PROJECT}: {error}; write the project again") from None
    if not isinstance(known, dict) or known.get("format") != PROJECT_FORMAT:
        raise BundleError(f"{project / PROJECT} is not of format {PROJECT_FORMAT}; write the project again")
    return known


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bench.py",
        description="Measure the bundle of this folder on this Mac or on an iPhone: parity first, then load "
        "and latency of every function under every choice of compute units.",
    )
    parser.add_argument("--device", choices=DEVICES, default="mac")
    parser.add_argument(
        "--compute-units",
        action="append",
        default=[],
        metavar="UNITS",
        help=f"{', '.join(UNITS)}; may be repeated; {COMPARE} (the default) takes all in turn",
    )
    parser.add_argument("--phone", metavar="NAME_OR_UDID", help="which iPhone, where several are connected")
    parser.add_argument("--team", help="Apple developer team that signs the runner app on the phone")
    parser.add_argument("--runs", type=int, help="runs of a block (default: 50 on a Mac, 10 on an iPhone)")
    parser.add_argument("--blocks", type=int, help="blocks (default: 10 on a Mac, 3 on an iPhone)")
    parser.add_argument("--warmup", type=int, help="runs before each block that are not counted")
    parser.add_argument("-o", "--out", default="result.json", help="JSON file of every raw sample")
    parser.add_argument("--force", action="store_true", help="replace the JSON file if it exists")
    return parser
