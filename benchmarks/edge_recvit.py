"""Edge-RecViT by depth, against itself as its training code runs it: `python benchmarks/edge_recvit.py -o edge.json`.

For each mean depth a checkpoint whose router spreads the tokens around it (`depth_router`), calibrated on synthetic
pictures and exported as one self-dispatching graph with frozen keys. Against two dense forms of the same model: our
`--form masked`, and a plain module exported by PyTorch alone (`eager_edge`). All of them are measured in one call,
blocks in turn, each in a process of its own, over the pictures of the calibration. Wants a quiet machine, 1 GB of
disk and about eight minutes. Exit status 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from depth_router import depths, set_depths
from eager_edge import write_eager
from edge_plot import Point, draw
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from morvit_deploy.bundle import open_manifest
from morvit_deploy.calibration.images import open_images
from morvit_deploy.checkpoint import init_model, load_checkpoint, save_checkpoint
from morvit_deploy.devices import checked_threads
from morvit_deploy.errors import MorvitError
from morvit_deploy.exporters.api import export
from morvit_deploy.files import write_bytes, write_text
from morvit_deploy.macs import dense_macs, schedule_macs
from morvit_deploy.measuring.arithmetic import shares_of
from morvit_deploy.measuring.benchmark import settings
from morvit_deploy.measuring.conditions import read_conditions, warnings_about
from morvit_deploy.measuring.inputs import Source, prepare
from morvit_deploy.measuring.results import BenchResult, Measured, Ratio, ratio_of
from morvit_deploy.measuring.turns import Amount, Teller, start_lanes, take_in_turn
from morvit_deploy.measuring.views import conditions_table, spread, three_digits
from morvit_deploy.model import MoRViT
from morvit_deploy.pixels import Pixels, normalise, synthetic_images
from morvit_deploy.plan import Plan
from morvit_deploy.planning import Wish, calibrate
from morvit_deploy.presets import preset
from morvit_deploy.report import Table, count, share

BAR, BAR_DEPTH = 1.6, 6  # times as fast as the faster dense form, at this mean depth
DEPTHS, BUCKETS, PICTURES = (2, 4, 6, 8, 10, 12), 8, 64
PICTURE_SIZE = 256  # before the centre crop
SEEN, UNSEEN = 3, 4  # seeds of the pictures
CHECKED = 1  # pictures that an export is verified on: in every bucket, in float64
AT_ONCE = 2  # exports: tracing keeps one core busy
MASKED, EAGER = "masked", "eager"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Subject:
    """A model of one mean depth: how deep its tokens go, and what they should cost; MACs of an image."""

    asked: float
    mean: float
    within: float  # standard deviation of depth inside a picture, mean over the pictures
    between: float  # standard deviation of the pictures' mean depths
    unpadded: float  # if each picture had a bucket of its own
    unseen: float  # pictures that the buckets were not fitted to
    plan: Plan

    @property
    def name(self) -> str:
        """Of its bundle."""
        return f"depth-{self.asked:g}"


def main() -> int:
    """Export, measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        folder = Path(scratch)
        subjects = _write_all(folder, options, status.update)
        result = _measure(folder, [*(it.name for it in subjects), MASKED, EAGER], options, status.update)
    points = [_point(result, i, subject) for i, subject in enumerate(subjects)]
    print(
        _depth_table(result, subjects, points).markdown(),
        _bucket_table(result, subjects).markdown(),
        _dense_table(result).markdown(),
        conditions_table(result.device, result.conditions, result.measured).markdown(),
        sep="\n",
    )
    for warning in result.warnings:
        console.print(f"warning: {warning}", markup=False)
    if options.out:
        data = {**result.as_dict(), "depths": [asdict(point) for point in points]}
        write_text(options.out, json.dumps(data, indent=1, allow_nan=False) + "\n")
    if options.plot:
        write_bytes(options.plot, draw(points, dense_macs(preset("edge_recvit_b16")), BAR_DEPTH, BAR))
    return _judge(points)


# models and bundles -------------------------------------------------------------------------------------------


def _write_all(folder: Path, options: argparse.Namespace, tell: Tell) -> list[Subject]:
    """A bundle for each depth, several at a time, and the two dense forms of the depth that the bar is about."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, pixels in enumerate(synthetic_images(options.pictures, PICTURE_SIZE, seed=SEEN)):
        Image.fromarray(pixels).save(pictures / f"{number:03}.png")
    tell(f"exporting {len(options.depths)} depths, {AT_ONCE} at a time")
    with ProcessPoolExecutor(AT_ONCE, mp_context=get_context("spawn")) as pool:
        subjects = list(pool.map(partial(_write_depth, folder, options.buckets), options.depths))
    tell("exporting the dense forms")
    dense = next((it for it in subjects if it.asked == BAR_DEPTH), subjects[0])  # any depth has the same
    checkpoint = folder / f"{dense.name}-checkpoint"
    model = load_checkpoint(checkpoint)
    images = open_images(pictures, model.config, limit=CHECKED).all()
    export(checkpoint, folder / MASKED, form="masked", images=pictures, limit=CHECKED)
    write_eager(model, folder / EAGER, open_manifest(folder / MASKED), images)
    return subjects


def _write_depth(folder: Path, buckets: int, asked: float) -> Subject:
    """Checkpoint, plan and bundle of one mean depth."""
    pictures, name = folder / "pictures", f"depth-{asked:g}"
    checkpoint, plan_file = folder / f"{name}-checkpoint", folder / f"{name}.json"
    model = init_model(preset("edge_recvit_b16"), seed=0)
    images = _normal(model, open_images(pictures, model.config).all())
    mean = set_depths(model, images, asked)
    save_checkpoint(model, checkpoint)
    plan = calibrate(checkpoint, pictures, wish=Wish(buckets=buckets)).plan
    write_text(plan_file, plan.to_json())
    export(checkpoint, folder / name, plan=plan_file, images=pictures, limit=CHECKED)
    depth = depths(model, images).numpy()
    others = synthetic_images(len(images), model.config.image_size, seed=UNSEEN)
    elsewhere = _counts(model, depths(model, _normal(model, others)).numpy())
    macs = np.array([bucket.macs for bucket in plan.buckets])
    own = [schedule_macs(model.config, tuple(counts)) for counts in _counts(model, depth).tolist()]
    return Subject(
        asked=asked,
        mean=mean,
        within=float(depth.std(axis=1).mean()),
        between=float(depth.mean(axis=1).std()),
        unpadded=float(np.mean(own)),
        unseen=float(macs[plan.dispatched(elsewhere)[0]].mean()),
        plan=plan,
    )


def _normal(model: MoRViT, images: Pixels) -> torch.Tensor:
    return torch.from_numpy(normalise(images, model.config.preprocess))


def _counts(model: MoRViT, depth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Depths (n, N) to the patch tokens that run each layer (n, layers)."""
    layers = np.arange(1, model.config.num_layers + 1)
    return (depth[:, None, :] >= layers[:, None]).sum(axis=2)


# measuring ----------------------------------------------------------------------------------------------------


def _measure(folder: Path, names: list[str], options: argparse.Namespace, tell: Tell) -> BenchResult:
    """All bundles, blocks in turn; of one that chooses buckets, a block is passes over the pictures."""
    amount = Amount(options.runs, options.blocks, starts=1)
    threads, source = checked_threads(options.threads), Source(folder / "pictures")
    teller = Teller(tell, lambda share: None)
    with ExitStack() as stack:
        subjects = [(name, prepare(folder / name, source, folder / f"{name}.npy")) for name in names]
        conditions = read_conditions()
        lanes = start_lanes(subjects, threads, amount.starts, stack, teller)
        take_in_turn(lanes, options.runs, amount.warmup, amount.blocks, teller)
        measured = tuple(lane.measured(lane.worker.memory_mib()) for lane in lanes)
    inputs = f"{options.pictures} synthetic pictures"
    conditions |= {
        "threads": threads,
        **settings(None, amount),
        "runs_per_block": options.runs,
        "inputs": inputs,
    }
    return BenchResult("cpu", measured, conditions, warnings_about(conditions, measured))


def _named(result: BenchResult, name: str) -> Measured:
    return next(one for one in result.measured if one.bundle == name)


def _faster_dense(result: BenchResult) -> Measured:
    """The one of the dense forms that is harder to beat."""
    return min((_named(result, name) for name in (MASKED, EAGER)), key=lambda one: one.latency_ms["p50"])


def _kinds(one: Measured) -> list[str]:
    """The bucket of every run."""
    chosen = [kind for block in one.blocks for kind in block.kinds]
    return chosen or list(one.macs) * len(one.samples_ms)


def _point(result: BenchResult, i: int, subject: Subject) -> Point:
    one, dense = result.measured[i], _faster_dense(result)
    shares = shares_of(_kinds(one))
    ratio = ratio_of(one, dense, means=True)
    return Point(
        asked=subject.asked,
        mean=subject.mean,
        within=subject.within,
        between=subject.between,
        macs=sum(part * one.macs[bucket] for bucket, part in shares.items()),
        unpadded=subject.unpadded,
        unseen=subject.unseen,
        ratio=ratio.median,
        slowest=min(ratio.per_block),
        fastest=max(ratio.per_block),
    )


# reading ------------------------------------------------------------------------------------------------------


def _depth_table(result: BenchResult, subjects: list[Subject], points: list[Point]) -> Table:
    dense = dense_macs(preset("edge_recvit_b16"))
    rows = [
        (
            f"{point.mean:.2f}",
            f"{point.within:.1f}, {point.between:.1f}",
            count(point.macs),
            count(point.unpadded),
            count(point.unseen),
            f"{dense / point.macs:.2f}",
            three_digits(one.latency_ms["p50"]),
            spread([block.mean_ms for block in one.blocks]),
            *_ratio_cells(ratio_of(one, _named(result, MASKED), means=True)),
            *_ratio_cells(ratio_of(one, _named(result, EAGER), means=True)),
        )
        for one, point in zip(result.measured, points, strict=False)
    ]
    columns = (
        "mean depth",
        "spread in, between pictures",
        "MACs",
        "unpadded",
        "of unseen pictures",
        "× fewer than dense",
        "median ms",
        "blocks' means",
        "× masked",
        "over the blocks",
        "× eager",
        "over the blocks",
    )
    buckets = max(len(subject.plan.buckets) for subject in subjects)
    caption = (
        f"batch 1, fp32, {result.conditions['threads']} threads, at most {buckets} buckets; MACs of an image: over "
        "the mix, if each picture had a bucket of its own, and of pictures that the buckets were not fitted to; "
        "ratios are those of a block's mean"
    )
    return Table("Edge-RecViT-B/16 by mean depth", columns, rows, tuple(range(len(columns))), caption)


def _ratio_cells(ratio: Ratio) -> tuple[str, str]:
    return f"{ratio.median:.2f}", spread(ratio.per_block)


def _bucket_table(result: BenchResult, subjects: list[Subject]) -> Table:
    rows = []
    for one, subject in zip(result.measured, subjects, strict=False):
        kinds, samples = _kinds(one), one.samples_ms
        shares = shares_of(kinds)
        for bucket in subject.plan.buckets:
            own = [ms for ms, kind in zip(samples, kinds, strict=True) if kind == bucket.name]
            rows.append(
                (
                    f"{subject.mean:.2f}",
                    bucket.name,
                    ", ".join(map(str, bucket.capacity)),
                    count(one.macs[bucket.name]),
                    share(shares.get(bucket.name, 0.0)),
                    three_digits(median(own)) if own else "",
                )
            )
    columns = ("mean depth", "bucket", "patch tokens in each layer", "MACs", "runs", "median ms")
    return Table("Buckets", columns, rows, (0, 3, 4, 5), "MACs are counted from the written graphs")


def _dense_table(result: BenchResult) -> Table:
    """Both dense forms, and which is the harder one to beat."""
    rows = []
    for name in (MASKED, EAGER):
        one = _named(result, name)
        (macs,) = one.macs.values()
        ratio = ratio_of(one, _named(result, EAGER), means=True)
        latency = three_digits(one.latency_ms["p50"]), spread(one.block_medians_ms)
        rows.append((name, count(macs), *latency, *_ratio_cells(ratio)))
    columns = ("form", "MACs", "median ms", "blocks' medians", "× eager", "over the blocks")
    caption = (
        "masked: our `--form masked`; eager: a plain module, exported by torch.onnx.export with its defaults"
    )
    return Table("Every token in every layer", columns, rows, (1, 2, 3, 4, 5), caption)


def _judge(points: list[Point]) -> int:
    for point in points:
        if point.asked == BAR_DEPTH:
            faster = f"{point.ratio:.2f} times as fast as the faster dense form"
            print(f"mean depth {point.mean:.2f}: {faster}; the bar is {BAR}")
            return 0 if point.ratio >= BAR else 1
    print(f"no depth of {BAR_DEPTH}, which the bar of {BAR} is for")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Edge-RecViT by mean depth, against its own dense form.")
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument("--plot", type=Path, help="PNG file to draw")
    parser.add_argument("--depths", type=float, nargs="+", default=DEPTHS, help="mean depths, 1 to 12")
    parser.add_argument(
        "--pictures", type=int, default=PICTURES, help="to calibrate on; 64 of them are timed"
    )
    parser.add_argument("--buckets", type=int, default=BUCKETS, help="at most, `full` among them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20, help="runs in a block of a dense form, at least 10")
    parser.add_argument("--blocks", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except MorvitError as error:
        sys.exit(f"error: {error}")
