"""Edge-RecViT by depth, against itself as its training code runs it: `python benchmarks/edge_recvit.py -o edge.json`.

For each mean depth a checkpoint whose router spreads the tokens around it (`depth_router`), calibrated on synthetic
pictures and exported as one self-dispatching graph with frozen keys. Against two dense forms of the same model: our
`--form masked`, and a plain module exported by PyTorch alone (`eager_edge`). All of them are measured in one call,
blocks in turn, each in a process of its own, over the pictures of the calibration. Wants a quiet machine, 1 GB of
disk and about eight minutes. Exit status 1 when the bar is missed.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from statistics import median

from common import print_conditions, run, write_json
from edge_models import EAGER, MASKED, PICTURES, PRESET, Subject, write_all
from edge_plot import Point, draw
from rich.console import Console

from morvit_deploy.files import any_file, write_bytes
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.measuring.core.inputs import Source, prepare
from morvit_deploy.measuring.core.request import settings
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.cpu.lanes import BundleLane, BundleProcesses, parities
from morvit_deploy.model.macs import dense_macs
from morvit_deploy.model.presets import preset
from morvit_deploy.report import Table, count, share, spread, three_digits
from morvit_deploy.timing.arithmetic import shares_of
from morvit_deploy.timing.loop import Amount, Stages, measure
from morvit_deploy.timing.result import Ratio, ratio_of, warnings_about

BAR, BAR_DEPTH = 1.75, 6  # times as fast as the faster dense form, at this mean depth
DEPTHS, BUCKETS, COUNT = (2, 4, 6, 8, 10, 12), 12, 64

Tell = Callable[[str], None]


def main() -> int:
    """Export, measure, print; the exit status."""
    options = _options()
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, console.status("starting") as status:
        folder = Path(scratch)
        subjects = write_all(
            folder, options.depths, options.pictures, options.buckets, BAR_DEPTH, status.update
        )
        result = _measure(folder, [*(it.name for it in subjects), MASKED, EAGER], options, status.update)
    points = [_point(result, i, subject) for i, subject in enumerate(subjects)]
    print(
        _depth_table(result, subjects, points).markdown(),
        _bucket_table(result, subjects).markdown(),
        _dense_table(result).markdown(),
        sep="\n",
    )
    print_conditions(result, console)
    write_json(options.out, {**result.as_dict(), "depths": [asdict(point) for point in points]})
    if options.plot:
        write_bytes(options.plot, draw(points, dense_macs(preset(PRESET)), BAR_DEPTH, BAR), replaces=any_file)
    return _judge(points)


# measuring ----------------------------------------------------------------------------------------------------


def _measure(folder: Path, names: list[str], options: argparse.Namespace, tell: Tell) -> BenchResult:
    """All bundles, blocks in turn; of one that chooses buckets, a block is passes over the pictures."""
    amount = Amount(options.runs, options.blocks, starts=1)
    threads, source = checked_threads(options.threads), Source(folder / PICTURES)
    with ExitStack() as stack:
        subjects = [prepare(folder / name, source, folder / f"{name}.npy") for name in names]
        lanes = [BundleLane.of(subject, name) for subject, name in zip(subjects, names, strict=True)]
        device = BundleProcesses(threads, stack, mixes=False)
        conditions = measure(device, lanes, amount, Stages(tell))
        measured = tuple(lane.measured() for lane in lanes)
    inputs = f"{options.pictures} synthetic pictures"
    conditions |= {
        "threads": threads,
        **settings(Source(), amount),
        "parity": parities(lanes),
        "inputs": inputs,
    }
    return BenchResult("cpu", measured, conditions, warnings_about(conditions, measured))


def _named(result: BenchResult, name: str) -> MeasuredBundle:
    return next(one for one in result.measured if one.name == name)


def _faster_dense(result: BenchResult) -> MeasuredBundle:
    """The one of the dense forms that is harder to beat."""
    return min((_named(result, name) for name in (MASKED, EAGER)), key=lambda one: one.latency_ms["p50"])


def _kinds(one: MeasuredBundle) -> list[str]:
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
    dense = dense_macs(preset(PRESET))
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
    parser.add_argument("--pictures", type=int, default=COUNT, help="to calibrate on; 64 of them are timed")
    parser.add_argument("--buckets", type=int, default=BUCKETS, help="at most, `full` among them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=20, help="runs in a block of a dense form, at least 10")
    parser.add_argument("--blocks", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
