"""Self-dispatching graphs against one bucket: `python benchmarks/dispatch.py -o dispatch.json`.

Bytes on disk, memory of a process that has served every bucket, and what the choice costs in time: a bucket alone and
the same bucket chosen by the graph, blocks of both taken in turn in one process. Two models:

- `morvit_b16` with five buckets and random weights. The thresholds come from `calibrate` on synthetic pictures, and
  each bucket, `full` among them, serves a fifth of the pictures.
- `digits-expert` with the buckets that `calibrate` fits to `examples/digits-test`.

Wants a quiet machine and about six minutes. Exit status 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import Thresholds, ladder, print_conditions, run, write_json
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.pixels import Pixels, normalise, synthetic_images
from morvit_deploy.bundle.session import Session
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.files import write_text
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.model.checkpoint import fingerprint, init_model, save_checkpoint
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.presets import preset
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Routing
from morvit_deploy.planning.rounds import calibrate
from morvit_deploy.report import Table, size, three_digits

BUCKETS, PICTURES, WARMUP = 5, 40, 2
DIGITS_BUCKETS = 4
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
FILE_BAR = 1.05  # × the bytes of one bucket's bundle
MEMORY_BAR, MEMORY_AIM = 1.4, 1.25  # × the anonymous memory of a process that serves one bucket
DISPATCH_BARS = {"morvit_b16": 2.0, "digits-expert": 8.0}  # per cent of the bucket's own latency
PICTURE_SIZE = 256  # before the centre crop


@dataclass(frozen=True)
class Bundles:
    """A model's top-k bundle, its self-dispatching bundle, and pictures for both."""

    one: Path
    several: Path
    pictures: Path


@dataclass(frozen=True)
class Cost:
    """Medians of blocks, ms: a bucket alone, and the bundle when it answers with that bucket."""

    alone_ms: list[float]
    chosen_ms: list[float]

    @property
    def percent(self) -> list[float]:
        """What the choice costs, of the bucket's own latency, block by block."""
        return [100 * (b / a - 1) for a, b in zip(self.alone_ms, self.chosen_ms, strict=True)]


@dataclass(frozen=True)
class Measured:
    """Both bundles of a model, and the cost of the choice for each bucket."""

    result: BenchResult
    costs: dict[str, Cost]


def main() -> int:
    """Export, measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    measured = {}
    for model in options.models:
        with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
            measured[model] = _measure(MODELS[model](Path(scratch), status.update), options, status.update)
        print(
            _table(model, measured[model].result).markdown(),
            _dispatch_table(model, measured[model].costs).markdown(),
            sep="\n",
        )
    print_conditions([*measured.values()][-1].result, console)
    write_json(options.out, {name: _as_dict(it) for name, it in measured.items()})
    return max(_judge(name, it) for name, it in measured.items())


def _measure(bundles: Bundles, options: argparse.Namespace, tell: Callable[[str], None]) -> Measured:
    result = bench(
        [bundles.several, bundles.one],
        images=bundles.pictures,
        threads=options.threads,
        blocks=2,
        starts=1,
        tell=tell,
    )
    return Measured(result, _dispatch_costs(bundles.several, bundles.pictures, options, tell))


def _as_dict(measured: Measured) -> dict[str, Any]:
    costs = {name: asdict(cost) for name, cost in measured.costs.items()}
    return {**measured.result.as_dict(), "dispatch": costs}


def _digits(folder: Path, tell: Callable[[str], None]) -> Bundles:
    """The trained example with the buckets that its test pictures need."""
    checkpoint, pictures, plan = EXAMPLES / "digits-expert", EXAMPLES / "digits-test", folder / "plan.json"
    tell("calibrating digits-expert")
    calibrated = calibrate(checkpoint, pictures, mode="threshold", scale=1.0, buckets=DIGITS_BUCKETS)
    write_text(plan, calibrated.plan.to_json())
    for name, chosen in (("one", None), ("several", plan)):
        tell(f"exporting {name}")
        export(checkpoint, folder / name, images=pictures, limit=4, plan=chosen)
    return Bundles(folder / "one", folder / "several", pictures)


def _morvit_b16(folder: Path, tell: Callable[[str], None]) -> Bundles:
    """Random weights, and BUCKETS buckets that serve equal parts of synthetic pictures."""
    model, pictures = init_model(preset("morvit_b16"), seed=0), folder / "pictures"
    save_checkpoint(model, folder / "checkpoint")
    pictures.mkdir()
    for number, pixels in enumerate(synthetic_images(PICTURES, PICTURE_SIZE, seed=3)):
        Image.fromarray(pixels).save(pictures / f"{number:03}.png")
    tell("calibrating")
    calibrated = calibrate(
        folder / "checkpoint", pictures, mode="threshold", scale=1.0, buckets=2, allow_worse=True
    )
    assert calibrated.plan.thresholds is not None
    tell("counting tokens")
    counts = _counts(model, pictures, calibrated.plan.thresholds)
    plan = folder / "plan.json"
    write_text(
        plan,
        _even_plan(model, calibrated.plan.thresholds, counts, fingerprint(folder / "checkpoint")).to_json(),
    )
    for name, chosen in (("one", None), ("several", plan)):
        tell(f"exporting {name}")
        export(folder / "checkpoint", folder / name, images=pictures, limit=4, plan=chosen)
    return Bundles(folder / "one", folder / "several", pictures)


MODELS = {"morvit_b16": _morvit_b16, "digits-expert": _digits}


def _counts(model: MoRViT, pictures: Path, thresholds: Thresholds) -> NDArray[np.int64]:
    """(pictures, steps) tokens that run each step, by the reference."""
    counts = []
    for _, pixels in open_images(pictures, model.config).batches(8):
        images = torch.from_numpy(normalise(pixels, model.config.preprocess))
        counts += [trace.counts for trace in model(images, Routing(thresholds)).traces]
    return np.array(counts, dtype=np.int64)


def _even_plan(model: MoRViT, thresholds: Thresholds, counts: NDArray[np.int64], sha256: str) -> Plan:
    """Equal parts of the pictures by their count at step 1, each part's envelope a bucket, the last part `full`."""
    parts = np.array_split(counts[np.argsort(counts[:, 0], kind="stable")], BUCKETS)
    capacities = [tuple(map(int, part.max(axis=0))) for part in parts[:-1]]
    return ladder(model.config, capacities, thresholds, share=1 / BUCKETS, checkpoint=sha256)


def _table(model: str, result: BenchResult) -> Table:
    several, one = result.measured
    rows = [
        (name, size(it.file_bytes), f"{it.memory_mib['anonymous']:.0f}", three_digits(it.latency_ms["p50"]))
        for name, it in (("several buckets, self-dispatching", several), ("one top-k bucket", one))
    ]
    rows.append(("ratio", f"{_files(result):.3f}", f"{_memory(result):.2f}", ""))
    columns = ("bundle", "files", "anonymous MiB", "p50 ms of the pictures")
    served = _mix(several)["fed"]["shares"]
    caption = "served: " + ", ".join(f"{name} {share:.0%}" for name, share in served.items())
    return Table(f"{model}: several buckets against one", columns, rows, numeric=(1, 2, 3), caption=caption)


def _dispatch_costs(
    bundle: Path, pictures: Path, options: argparse.Namespace, tell: Callable[[str], None]
) -> dict[str, Cost]:
    """Bucket to its cost, each on the first picture that the bundle answers with it."""
    costs = {}
    with open_bundle(bundle, threads=options.threads) as chosen:
        pixels = open_images(pictures, chosen.manifest.config).all()
        answer = chosen.run(pixels)
        for number, bucket in enumerate(chosen.manifest.plan.buckets):
            tell(f"timing {bucket.name}, alone and chosen")
            met = np.flatnonzero((answer["bucket"] == number) & ~answer["overflow"])
            if not len(met):  # no picture needs it
                continue
            picture = pixels[met[:1]]
            with open_bundle(bundle, threads=options.threads, bucket=bucket.name) as alone:
                pair = (alone, chosen)
                blocks: tuple[list[float], list[float]] = ([], [])
                for block in range(options.blocks):
                    for i in (0, 1) if block % 2 else (1, 0):
                        blocks[i].append(_block_ms(pair[i], picture, options))
            costs[bucket.name] = Cost(*blocks)
    return costs


def _block_ms(session: Session, picture: Pixels, options: argparse.Namespace) -> float:
    clock = time.thread_time_ns if options.processor_time else time.perf_counter_ns
    samples = []
    for _ in range(WARMUP + options.runs):
        started = clock()
        session.run(picture)
        samples.append((clock() - started) / 1e6)
    return median(samples[WARMUP:])


def _dispatch_table(model: str, costs: dict[str, Cost]) -> Table:
    rows = [
        (
            name,
            three_digits(median(cost.alone_ms)),
            three_digits(median(cost.chosen_ms)),
            f"{median(cost.percent):+.2f} %",
            "{:+.2f} to {:+.2f}".format(*np.percentile(cost.percent, (25, 75))),
        )
        for name, cost in costs.items()
    ]
    columns = ("bucket", "alone, ms", "chosen, ms", "cost of the choice", "quartiles over the blocks")
    caption = "the same picture, blocks in turn in one process"
    return Table(f"{model}: cost of the choice", columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def _mix(measured: MeasuredBundle) -> dict[str, Any]:
    assert measured.mix is not None
    return measured.mix.as_dict()


def _files(result: BenchResult) -> float:
    return result.measured[0].file_bytes / result.measured[1].file_bytes


def _memory(result: BenchResult) -> float:
    several, one = (it.memory_mib["anonymous"] for it in result.measured)
    return several / one


def _judge(model: str, measured: Measured) -> int:
    result, bar = measured.result, DISPATCH_BARS[model]
    worst = max(median(cost.percent) for cost in measured.costs.values())
    met = worst <= bar
    line = f"{model}: dispatch at most {worst:+.2f} % of a bucket's latency (bar {bar} %)"
    if model == "morvit_b16":  # the files of a small model are mostly graphs
        line += (
            f"; files {_files(result):.3f} × (bar {FILE_BAR}); anonymous memory {_memory(result):.2f} × "
            f"(bar {MEMORY_BAR}, aim {MEMORY_AIM})"
        )
        met = met and _files(result) <= FILE_BAR and _memory(result) <= MEMORY_BAR
    print(line)
    return 0 if met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Self-dispatching graphs against one bucket.")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10, help="runs in a block, at least 10")
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument(
        "--processor-time",
        action="store_true",
        help="for a busy machine; the cost of the choice on one thread",
    )
    options = parser.parse_args()
    if options.processor_time and options.threads != 1:
        parser.error("--processor-time counts the calling thread; it requires --threads 1")
    return options


if __name__ == "__main__":
    run(main)
