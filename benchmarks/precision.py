"""Lower precisions against fp32 in ONNX Runtime on the CPU: `python benchmarks/precision.py -o precision.json`.

Time and memory on MoR-ViT-B/16 (random weights, synthetic pictures), with ViT-B/16 in fp32 in the same run; the peak
memory of calibrating on few and on many images; answers and routing of the trained digits models on pictures that
calibration did not see (drawn by `examples/pictures.py`, which wants scikit-learn). Wants a quiet machine with VNNI,
about 2 GB of disk and less than ten minutes. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import print_conditions, run, write_json
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.manifest import MANIFEST
from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.calibration.ranges.sensitivity import snr_db
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs.assembly import trace_pieces
from morvit_deploy.exporters.onnx.low.observe import Observer, Stream
from morvit_deploy.exporters.onnx.low.ranges import ranges_of
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.graph.unroll import unroll_plan
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.model.checkpoint import init_model, load_checkpoint, save_checkpoint
from morvit_deploy.model.config import load_config
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.presets import preset
from morvit_deploy.report import Table, size, spread, three_digits
from morvit_deploy.verifying.routes import Routes

ROOT = Path(__file__).resolve().parents[1]
TIME_BAR = 0.55  # int8's time over fp32's
VIT_BAR = 11.0  # times as fast as ViT-B/16 in fp32, without VNNI
MEMORY_BAR = 0.55  # int8's memory over fp32's
SIZE_BAR = 1.10  # times a quarter of fp32's files
GROWTH_BAR = 1.05  # peak of calibrating on MANY over that on FEW: the allocator's own spread
SHARE_BARS = {"w8": 0.30, "w4": 0.18, "fast-tail": 1.25}  # of fp32's files
TAIL_BAR = 1.10  # times as fast as fp32
TOP1_BARS = {"int8": 0.5, "fp16": 0.1, "w8": 0.5}  # points
TOKEN_BARS = {"int8": 0.99, "fp16": 0.999, "w8": 0.99}  # at each step
FEW, MANY = 64, 512  # images
PICTURE_SIZE = 256  # before the centre crop
TESTED = 2000  # digits
LOWERED: dict[str, dict[str, Any]] = {
    "fp32": {},
    "int8": {"precision": "int8"},
    "fp16": {"precision": "fp16"},
    "w8": {"precision": "w8"},
    "w4": {"precision": "w4"},
    "fast-tail": {"fast_tail": True},
}


@dataclass(frozen=True)
class Bar:
    """One number that was asked for."""

    what: str
    found: float
    bar: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Is it?"""
        return self.found <= self.bar if self.at_most else self.found >= self.bar

    def row(self) -> tuple[str, ...]:
        """For the table."""
        sign = "≤" if self.at_most else "≥"
        return self.what, f"{self.found:.4g}", f"{sign} {self.bar:g}", "met" if self.met else "MISSED"


@dataclass(frozen=True)
class Answered:
    """A digits bundle on pictures that nobody saw."""

    model: str
    options: str
    top1: float
    top1_lost: float  # points, against fp32
    agreement: float  # with fp32
    snr_db: float
    tokens: tuple[float, ...]  # routed as fp32 routes them, at each step


def main() -> int:
    """Export, measure, print; the exit status."""
    options = _options()
    if options.calibrate_only:
        _calibrate_only(options.bundles, options.calibrate_only)
        return 0
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        folder = options.bundles or Path(scratch)
        _pictures(folder / "pictures", MANY + 32)
        names = tuple(options.names)
        bundles = [_b16(folder, name, status.update) for name in names]
        result = bench(
            bundles,
            threads=options.threads,
            runs=options.runs,
            blocks=options.blocks,
            starts=options.starts,
            tell=status.update,
        )
        counts = () if options.no_peaks else (FEW, MANY)
        peaks = {count: _calibration_peak(folder, count, status.update) for count in counts}
        answers = [] if options.no_digits else _digits(folder, status.update)
    bars = [*_speed_bars(result, names), *_peak_bars(peaks), *_answer_bars(answers)]
    print(_table(result, names).markdown())
    if peaks:
        print(
            ", ".join(f"calibrating on {count} images: {peak:.0f} MiB" for count, peak in peaks.items())
            + "\n"
        )
    if answers:
        print(_answer_table(answers).markdown())
    print(Table("Bars", ("what", "found", "asked", ""), [bar.row() for bar in bars], (1, 2)).markdown())
    print_conditions(result, console)
    data = {**result.as_dict(), "calibration_peak_mib": peaks, "bars": [asdict(bar) for bar in bars]}
    write_json(options.out, data | {"digits": [asdict(one) for one in answers]})
    return 0 if all(bar.met for bar in bars) else 1


def _b16(folder: Path, name: str, tell: Callable[[str], None]) -> Path:
    """A bundle of MoR-ViT-B/16, or of the plain ViT-B/16 that all is measured against."""
    bundle = folder / name
    if (bundle / MANIFEST).is_file():
        return bundle
    tell(f"exporting {name}")
    checkpoint = _checkpoint(folder, "vit_b16" if name == "vit" else "morvit_b16")
    if name == "vit":
        export(checkpoint, bundle, form="masked")
    elif name == "fp32":
        export(checkpoint, bundle)
    else:  # random weights keep no class: speed and memory are what is measured on them
        options = {**LOWERED[name], "images": folder / "pictures", "limit": 32, "calibration_limit": FEW}
        export(checkpoint, bundle, allow_worse=True, **options)
    return bundle


def _checkpoint(folder: Path, name: str) -> Path:
    place = folder / "checkpoints" / name
    if not place.exists():
        save_checkpoint(init_model(preset(name), seed=0), place)
    return place


def _pictures(folder: Path, count: int) -> None:
    if folder.exists():
        return
    folder.mkdir(parents=True)
    for number in range(count):
        (picture,) = synthetic_images(1, PICTURE_SIZE, seed=number)
        Image.fromarray(picture).save(folder / f"{number:04}.png")


def _calibration_peak(folder: Path, count: int, tell: Callable[[str], None]) -> float:
    """MiB that a process takes at most while it gathers the ranges of `count` images, in both looks."""
    tell(f"calibrating on {count} images")
    words = [sys.executable, __file__, "--calibrate-only", str(count), "--bundles", str(folder)]
    answer = subprocess.run(words, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return float(answer.stdout)


def _calibrate_only(folder: Path, count: int) -> None:
    """Print the peak of this process, MiB, from after the graph was traced to the last range."""
    checkpoint = _checkpoint(folder, "morvit_b16")
    model = load_checkpoint(checkpoint)
    plan = own_plan(model.config)
    graphs = unroll_plan(model, plan)
    pieces = trace_pieces(graphs, plan, example_image(graphs["topk"], 1), dynamic=False, inside=False)
    images = open_images(folder / "pictures", model.config, limit=count)
    observer = Observer(pieces, plan, Stream(images, 1, uint8=True))
    Path("/proc/self/clear_refs").write_text("5")  # what tracing took is not counted: the peak starts anew
    observer.choose()
    ranges_of(observer, "percentile", symmetric=False)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmHWM"].split()[0]) / 1024)


# digits ----------------------------------------------------------------------------------------------------


def _digits(folder: Path, tell: Callable[[str], None]) -> list[Answered]:
    """fp32, int8 and fp16 of both trained models, on digits of the half that calibration did not see."""
    for half, count, seed in (("first", 320, 11), ("second", TESTED, 12)):
        if not (folder / half).exists():
            tell(f"drawing {count} pictures")
            words = [sys.executable, "pictures.py", "--out", str((folder / half).resolve())]
            words += ["--half", half, "--count", str(count), "--seed", str(seed)]
            subprocess.run(words, check=True, cwd=ROOT / "examples", stdout=subprocess.DEVNULL)
    answers = []
    variants: dict[str, dict[str, Any]] = {
        "fp32": {},
        "int8": {"precision": "int8"},
        "int8, minmax": {"precision": "int8", "calibration": "minmax"},
        "int8, entropy": {"precision": "int8", "calibration": "entropy"},
        "int8, smooth": {"precision": "int8", "smooth": True},
        "int8, trt": {"precision": "int8", "int8_flavor": "trt"},
        "fp16": {"precision": "fp16"},
        "w8": {"precision": "w8"},
        "w4": {"precision": "w4"},
    }
    for model in ("digits-expert", "digits-token"):
        checkpoint = ROOT / "examples" / model
        tested = open_images(folder / "second", load_config(checkpoint))
        labels = np.asarray(tested.labels)
        whole: Arrays = {}
        for told, options in variants.items():
            tell(f"{model}: {told}")
            bundle = folder / f"{model}-{told.replace(', ', '-')}"
            if not (bundle / MANIFEST).is_file():
                export(
                    checkpoint,
                    bundle,
                    images=folder / "first",
                    limit=64,
                    allow_worse=bool(options),
                    **options,
                )
            with open_bundle(bundle, probes=True) as session:
                found = session.run(tested.all())
                routes = Routes(session.manifest.config, session.manifest.plan.buckets[0].capacity)
            whole = whole or found
            answers.append(_answered(model, told, whole, found, labels, routes))
    return answers


def _answered(
    model: str, told: str, whole: Arrays, found: Arrays, labels: NDArray[np.int64], routes: Routes
) -> Answered:
    classes, wanted = found["logits"].argmax(axis=1), whole["logits"].argmax(axis=1)
    runs, expected = routes.runs(found), routes.runs(whole)
    assert runs is not None and expected is not None, "the bundles have probes"
    top1 = float((classes == labels).mean())
    return Answered(
        model,
        told,
        top1,
        100 * (float((wanted == labels).mean()) - top1),
        float((classes == wanted).mean()),
        min(snr_db(whole["logits"], found["logits"]), 200.0),  # fp32 against itself has no noise
        tuple((runs == expected).mean(axis=(1, 2)).tolist()),
    )


# bars and tables -------------------------------------------------------------------------------------------


def _speed_bars(result: BenchResult, names: tuple[str, ...]) -> list[Bar]:
    bars = _int8_bars(result, names) if {"int8", "fp32", "vit"} <= {*names} else []
    if "fp32" not in names:
        return bars
    whole = names.index("fp32")
    for name in (name for name in names if name in SHARE_BARS):
        share = result.measured[names.index(name)].file_bytes / result.measured[whole].file_bytes
        bars.append(Bar(f"{name} files, of fp32", share, SHARE_BARS[name]))
    if "fast-tail" in names:
        faster = result.ratio(names.index("fast-tail"), whole).median
        bars.append(Bar("fast-tail, times as fast as fp32", faster, TAIL_BAR, at_most=False))
    return bars


def _int8_bars(result: BenchResult, names: tuple[str, ...]) -> list[Bar]:
    int8, fp32 = (result.measured[names.index(name)] for name in ("int8", "fp32"))
    faster = result.ratio(names.index("int8"), names.index("fp32")).median
    against_vit = result.ratio(names.index("int8"), names.index("vit")).median
    added = [one.memory_mib["peak"] - (one.starts[-1].resident_mib or 0) for one in (int8, fp32)]
    return [
        Bar("int8 time, of fp32", 1 / faster, TIME_BAR),
        Bar("int8, times as fast as ViT-B/16 fp32", against_vit, VIT_BAR, at_most=False),
        Bar("int8 files, of a quarter of fp32", 4 * int8.file_bytes / fp32.file_bytes, SIZE_BAR),
        Bar("int8 anonymous memory, of fp32", *_of(int8, fp32, "anonymous"), MEMORY_BAR),
        Bar("int8 peak memory that the bundle adds, of fp32", added[0] / added[1], MEMORY_BAR),
        Bar("int8 peak memory, Python and runtime included, of fp32", *_of(int8, fp32, "peak"), MEMORY_BAR),
    ]


def _of(one: MeasuredBundle, other: MeasuredBundle, kind: str) -> tuple[float]:
    return (one.memory_mib[kind] / other.memory_mib[kind],)


def _peak_bars(peaks: dict[int, float]) -> list[Bar]:
    if not peaks:
        return []
    return [
        Bar(f"peak memory of calibrating on {MANY} images, of {FEW}", peaks[MANY] / peaks[FEW], GROWTH_BAR)
    ]


def _answer_bars(answers: list[Answered]) -> list[Bar]:
    """Of the default options; the other rows are for comparison."""
    bars = []
    for one in answers:
        if one.options in TOP1_BARS:
            name = f"{one.model}, {one.options}"
            bars.append(Bar(f"{name}: points of top-1 lost", one.top1_lost, TOP1_BARS[one.options]))
            least, bar = min(one.tokens), TOKEN_BARS[one.options]
            bars.append(Bar(f"{name}: tokens routed alike, least of the steps", least, bar, at_most=False))
    return bars


def _table(result: BenchResult, names: tuple[str, ...]) -> Table:
    rows = []
    base = names.index("vit" if "vit" in names else "fp32")
    for place, name in enumerate(names):
        one, ratio = result.measured[place], result.ratio(place, base)
        memory = (f"{one.memory_mib.get(kind, float('nan')):.0f}" for kind in ("anonymous", "peak"))
        before = f"{one.starts[-1].resident_mib or 0:.0f}"
        rows.append(
            (
                "ViT-B/16 fp32" if name == "vit" else f"morvit_b16 {name}",
                three_digits(one.latency_ms["p50"]),
                spread(one.block_medians_ms),
                f"{ratio.median:.2f}",
                spread(ratio.per_block),
                size(one.file_bytes),
                *memory,
                before,
                three_digits(one.start_ms("load_ms")),
            )
        )
    columns = (
        *("bundle", "median ms", "blocks' medians", "× ViT-B/16" if "vit" in names else "× fp32"),
        *("over the blocks", "files"),
        *("anonymous MiB", "peak MiB", "resident before, MiB", "load ms"),
    )
    known = result.conditions
    caption = f"{known['blocks']} blocks of {known['runs_per_block']} runs each, batch 1, {known['threads']} threads"
    return Table("Precisions in ONNX Runtime", columns, rows, tuple(range(1, len(columns))), caption)


def _answer_table(answers: list[Answered]) -> Table:
    rows = [
        (
            one.model,
            one.options,
            f"{one.top1:.2%}",
            f"{one.agreement:.2%}",
            f"{one.snr_db:.1f} dB" if one.options != "fp32" else "",
            ", ".join(f"{100 * share:.2f}" for share in one.tokens),
        )
        for one in answers
    ]
    columns = (
        "model",
        "made",
        "top-1",
        "same class as fp32",
        "logit SNR",
        "tokens routed alike, % at each step",
    )
    caption = f"{TESTED} pictures of digits that calibration did not see"
    return Table("The trained digits models", columns, rows, (2, 3, 4), caption)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Lower precisions against fp32 in ONNX Runtime on the CPU.")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument(
        "--bundles", type=Path, help="folder to keep bundles and pictures in, and to take them from"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10, help="runs in a block, at least 10")
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--starts", type=int, default=3, help="new processes to time for each bundle")
    parser.add_argument(
        "--names",
        nargs="+",
        choices=[*LOWERED, "vit"],
        default=["int8", "fp32", "w8", "w4", "fast-tail", "vit"],
        help="bundles to time; fp16 has no kernels on a CPU",
    )
    parser.add_argument("--no-peaks", action="store_true", help="leave the memory of calibrating out")
    parser.add_argument("--no-digits", action="store_true", help="leave the digits models out")
    parser.add_argument(
        "--calibrate-only", type=int, help=argparse.SUPPRESS
    )  # a process of its own asks for it
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
