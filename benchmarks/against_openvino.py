"""ONNX Runtime against OpenVINO on the graphs of the same bundles, both on this machine's CPU.

    python -m venv build/ov && build/ov/bin/pip install openvino
    python benchmarks/against_openvino.py BUNDLE ... --site build/ov/lib/python3.11/site-packages -o openvino.json

Both compute in float32 where the graph does. Their logits are compared before anything is timed: in fp32 they agree
to TOLERANCE; below it the largest difference is printed. Blocks of both take turns in one process, with the same
number of threads, and only the call is timed. OpenVINO's own counters then say which operators its time is in.
The file is not called `openvino.py`, which would hide the library.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime as ort
from common import run, write_json
from numpy.typing import NDArray

from morvit_deploy.agent.run_ort import session_options
from morvit_deploy.bundle.links import open_linked
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.errors import ConfigError, ParityError
from morvit_deploy.exporters.onnx.graphs.names import GRAPH
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.report import Table, spread, three_digits
from morvit_deploy.timing.conditions import read_conditions
from morvit_deploy.timing.loop import Amount, CallLane, Calls, Stages, measure
from morvit_deploy.timing.result import warnings_about
from morvit_deploy.timing.samples import Block

TOLERANCE = 1e-4  # × max(1, max |logit|), as between devices
OURS, THEIRS = "ONNX Runtime", "OpenVINO"
MOST_OPERATORS = 5  # of OpenVINO, shown for each bundle
COUNTED = 20  # runs with its counters

Run = Callable[[], NDArray[np.float32]]


@dataclass(frozen=True)
class Compared:
    """One bundle in both, with OpenVINO's milliseconds a run by kind of operator."""

    name: str
    precision: str
    ours: tuple[Block, ...]
    theirs: tuple[Block, ...]
    max_abs: float  # |Δlogit|
    operators: dict[str, float]

    @property
    def ratios(self) -> list[float]:
        """How many times as fast ONNX Runtime is, block by block."""
        return [b.median_ms / a.median_ms for a, b in zip(self.ours, self.theirs, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        blocks = {"ours": [b.as_dict() for b in self.ours], "theirs": [b.as_dict() for b in self.theirs]}
        known = {
            name: getattr(self, name) for name in ("name", "precision", "max_abs", "operators", "ratios")
        }
        return {**known, **blocks}


def main() -> int:
    """Measure, print; the exit status."""
    options = _options()
    if options.site:
        sys.path.append(str(options.site))
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(
            f"openvino cannot be imported ({error}); install it into an environment of its own with the same Python, "
            "and give its site-packages with --site"
        ) from None
    conditions = read_conditions()
    conditions["versions"] |= {"onnxruntime": ort.__version__, "openvino": openvino.__version__}
    found = [_compare(folder, options) for folder in options.bundles]
    print(table(found).markdown(), operators(found).markdown(), sep="\n")
    for warning in warnings_about(conditions, ()):
        print(f"warning: {warning}", file=sys.stderr)
    write_json(options.out, {"conditions": conditions, "compared": [one.as_dict() for one in found]})
    return 0


def table(found: Sequence[Compared]) -> Table:
    """A row for each bundle."""
    rows = [
        (
            one.name,
            one.precision,
            three_digits(median(b.median_ms for b in one.ours)),
            three_digits(median(b.median_ms for b in one.theirs)),
            f"{median(one.ratios):.2f}",
            spread(one.ratios),
            f"{one.max_abs:.1e}",
        )
        for one in found
    ]
    columns = (
        "bundle",
        "precision",
        f"{OURS} ms",
        f"{THEIRS} ms",
        "times as fast",
        "over the blocks",
        "max |Δlogit|",
    )
    return Table(f"{OURS} against {THEIRS}", columns, rows, numeric=(2, 3, 4, 5, 6))


def operators(found: Sequence[Compared]) -> Table:
    """Where OpenVINO's time is, by its counters."""
    rows = []
    for one in found:
        total = sum(one.operators.values()) or 1.0
        most = Counter(one.operators).most_common(MOST_OPERATORS)
        rows.append((one.name, ", ".join(f"{kind} {100 * ms / total:.0f} %" for kind, ms in most)))
    return Table(f"Where the time of {THEIRS} is", ("bundle", "operators"), rows)


def _compare(folder: Path, options: argparse.Namespace) -> Compared:
    folder, manifest = open_linked(folder)
    if find_target(manifest.target).profiled is None or manifest.dispatch != "single" or manifest.batch != 1:
        raise ConfigError(
            f"{folder}: got {manifest.described}; expected a bundle for ONNX Runtime with one bucket and batch 1"
        )
    pixels = synthetic_images(1, manifest.config.image_size)
    ours, (theirs, count) = _ours(folder, pixels, options.threads), _theirs(folder, pixels, options.threads)
    gap = _gap(folder, manifest, ours(), theirs())
    lanes = [CallLane(name=OURS, call=ours), CallLane(name=THEIRS, call=theirs)]
    measure(Calls(), lanes, Amount(blocks=options.blocks, starts=1, block_ms=options.block_ms), Stages())
    blocks = [tuple(lane.blocks) for lane in lanes]
    return Compared(folder.name, manifest.precision, blocks[0], blocks[1], gap, count())


def _gap(folder: Path, manifest: Manifest, ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Largest |Δlogit|; ParityError where both do not compute the same model."""
    gap = float(np.abs(ours - theirs).max())
    allowed = TOLERANCE * max(1.0, float(np.abs(ours).max()))
    if manifest.exact and not gap <= allowed:
        raise ParityError(
            f"{folder}: logits of {OURS} and {THEIRS} differ by {gap:.2g}, expected at most {allowed:.2g}"
        )
    return gap


def _ours(folder: Path, pixels: NDArray[np.uint8], threads: int) -> Run:
    session = ort.InferenceSession(
        str(folder / GRAPH), session_options(folder, threads), providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return lambda: np.asarray(session.run(["logits"], {name: pixels})[0])


def _theirs(
    folder: Path, pixels: NDArray[np.uint8], threads: int
) -> tuple[Run, Callable[[], dict[str, float]]]:
    """A run, and a function that returns milliseconds a run by kind of operator."""
    import openvino

    how = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    core, place = openvino.Core(), str(folder / GRAPH)
    request = core.compile_model(place, "CPU", how).create_infer_request()

    def run_once() -> NDArray[np.float32]:
        return np.array(request.infer({0: pixels}, share_inputs=True, share_outputs=True)["logits"])

    def count() -> dict[str, float]:
        counted = core.compile_model(place, "CPU", how | {"PERF_COUNT": True}).create_infer_request()
        found: Counter[str] = Counter()
        for number in range(COUNTED + 1):
            counted.infer({0: pixels})
            for node in counted.profiling_info if number else ():  # the first run prepares
                found[f"{node.node_type} ({node.exec_type})"] += (
                    node.real_time.total_seconds() * 1e3 / COUNTED
                )
        return {kind: ms for kind, ms in found.items() if ms > 0}

    return run_once, count


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="ONNX Runtime against OpenVINO on the graphs of bundles.")
    parser.add_argument("bundles", type=Path, nargs="+", help="bundles of target onnx, one bucket, batch 1")
    parser.add_argument(
        "--site", type=Path, help="site-packages with openvino, where it is not installed here"
    )
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--block-ms", type=float, default=700.0, help="of the slower one")
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
