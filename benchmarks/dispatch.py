"""Five buckets of MoR-ViT-B/16 in one self-dispatching graph: `python benchmarks/dispatch.py -o dispatch.json`.

Against one bucket alone: bytes on disk, memory of a process that has served every bucket, and what the choice costs
in time, blocks of both taken in turn in one process. Weights are random; the thresholds come from `calibrate` on
synthetic pictures, and the buckets are made so that each, `full` among them, serves a fifth of the pictures. Wants a
quiet machine and about five minutes. Exit status 1 when a bar is missed.
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
FILE_BAR = 1.05  # × the bytes of one bucket's bundle
MEMORY_BAR, MEMORY_AIM = 1.4, 1.25  # × the anonymous memory of a process that serves one bucket
DISPATCH_BAR = 3.0  # per cent of the bucket's own latency
PICTURE_SIZE = 256  # before the centre crop


def main() -> int:
    """Export, measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        folder = Path(scratch)
        one, five = _bundles(folder, status.update)
        result = bench(
            [five, one],
            images=folder / "pictures",
            threads=options.threads,
            blocks=2,
            starts=1,
            tell=status.update,
        )
        costs = _dispatch_costs(five, folder / "pictures", options, status.update)
    print(
        _table(result).markdown(),
        _dispatch_table(costs).markdown(),
        sep="\n",
    )
    print_conditions(result, console)
    costs_data = {name: asdict(cost) for name, cost in costs.items()}
    write_json(options.out, {**result.as_dict(), "dispatch": costs_data})
    return _judge(result, costs)


def _bundles(folder: Path, tell: Callable[[str], None]) -> tuple[Path, Path]:
    """One top-k bucket, and a self-dispatching graph of BUCKETS buckets."""
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
    for name, chosen in (("one", None), ("five", plan)):
        tell(f"exporting {name}")
        export(folder / "checkpoint", folder / name, images=pictures, limit=4, plan=chosen)
    return folder / "one", folder / "five"


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


def _table(result: BenchResult) -> Table:
    five, one = result.measured
    rows = [
        (name, size(it.file_bytes), f"{it.memory_mib['anonymous']:.0f}", three_digits(it.latency_ms["p50"]))
        for name, it in ((f"{BUCKETS} buckets, self-dispatching", five), ("one top-k bucket", one))
    ]
    rows.append(("ratio", f"{_files(result):.3f}", f"{_memory(result):.2f}", ""))
    columns = ("bundle", "files", "anonymous MiB", "p50 ms of the pictures")
    served = _mix(five)["fed"]["shares"]
    caption = "served: " + ", ".join(f"{name} {share:.0%}" for name, share in served.items())
    return Table("morvit_b16: five buckets against one", columns, rows, numeric=(1, 2, 3), caption=caption)


@dataclass(frozen=True)
class Cost:
    """Medians of blocks, ms: a bucket alone, and the bundle when it answers with that bucket."""

    alone_ms: list[float]
    chosen_ms: list[float]

    @property
    def percent(self) -> list[float]:
        """What the choice costs, of the bucket's own latency, block by block."""
        return [100 * (b / a - 1) for a, b in zip(self.alone_ms, self.chosen_ms, strict=True)]


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
            picture = pixels[met[:1]]
            with open_bundle(bundle, threads=options.threads, bucket=bucket.name) as alone:
                pair = (alone, chosen)
                blocks: tuple[list[float], list[float]] = ([], [])
                for block in range(options.blocks):
                    for i in (0, 1) if block % 2 else (1, 0):
                        blocks[i].append(_block_ms(pair[i], picture, options.runs))
            costs[bucket.name] = Cost(*blocks)
    return costs


def _block_ms(session: Session, picture: Pixels, runs: int) -> float:
    samples = []
    for _ in range(WARMUP + runs):
        started = time.perf_counter_ns()
        session.run(picture)
        samples.append((time.perf_counter_ns() - started) / 1e6)
    return median(samples[WARMUP:])


def _dispatch_table(costs: dict[str, Cost]) -> Table:
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
    return Table("Cost of the choice", columns, rows, numeric=(1, 2, 3, 4), caption=caption)


def _mix(measured: MeasuredBundle) -> dict[str, Any]:
    assert measured.mix is not None
    return measured.mix.as_dict()


def _files(result: BenchResult) -> float:
    return result.measured[0].file_bytes / result.measured[1].file_bytes


def _memory(result: BenchResult) -> float:
    five, one = (it.memory_mib["anonymous"] for it in result.measured)
    return five / one


def _judge(result: BenchResult, costs: dict[str, Cost]) -> int:
    worst = max(median(cost.percent) for cost in costs.values())
    print(
        f"files {_files(result):.3f} × (bar {FILE_BAR}); anonymous memory {_memory(result):.2f} × (bar {MEMORY_BAR}, "
        f"aim {MEMORY_AIM}); dispatch at most {worst:+.2f} % of a bucket's latency (bar {DISPATCH_BAR} %)"
    )
    met = _files(result) <= FILE_BAR and _memory(result) <= MEMORY_BAR and worst <= DISPATCH_BAR
    return 0 if met else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Five buckets of MoR-ViT-B/16 against one.")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=10, help="runs in a block, at least 10")
    parser.add_argument("--blocks", type=int, default=16)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
