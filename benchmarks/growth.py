"""How MoR-ViT-B/16 grows with pixels, batch, buckets and steps: one axis a call, then one table and one picture.

    python benchmarks/growth.py --axis pixels --bundles build/growth -o pixels.json
    python benchmarks/growth.py --merge pixels.json batch.json buckets.json steps.json --plot docs/growth.png

Random weights; latency does not depend on them. The bundles of an axis are measured in one call of `bench`, in blocks
taken in turn. `--export-only` fills --bundles and measures later. A slope is that of a straight line through the
logarithms of both quantities: 1 is proportional, 2 quadratic, 0 constant.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import ladder, print_conditions, run, write_json
from growth_plot import draw
from rich.console import Console

from morvit_deploy.bundle.manifest import MANIFEST
from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.api import export
from morvit_deploy.files import any_file, write_bytes
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.model.checkpoint import fingerprint, init_model, save_checkpoint
from morvit_deploy.model.config import Config, parse_config
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.presets import PRESETS
from morvit_deploy.report import Table, count, size, three_digits

KEPT = 0.41  # of the tokens at each step, as in the preset
PIXELS, BATCHES = (224, 320, 416, 512), (1, 2, 4, 8, 16, 32, 64)
BUCKETS, STEPS = (1, 2, 4, 8), (2, 5, 10, 24)
NOBODY = 1e30  # a threshold that no token reaches: every picture is served by the smallest bucket
QUANTITIES = {
    "ms": "time",
    "macs": "MACs",
    "file_bytes": "files",
    "anonymous_mib": "memory",
    "load_ms": "loading",
}


@dataclass(frozen=True)
class Point:
    """One bundle of an axis; times and MACs of a run."""

    at: int
    ms: float
    fastest_ms: float  # of the blocks' medians
    slowest_ms: float
    macs: int
    file_bytes: int
    anonymous_mib: float
    load_ms: float


def config_of(*, pixels: int = 224, steps: int = 10) -> Config:
    """`morvit_b16` with other sizes; each step keeps KEPT of the tokens of the one before, at least one."""
    patches = (pixels // 16) ** 2
    kept, capacity = float(patches), []
    for _ in range(steps):
        kept = max(1, round(KEPT * kept))
        capacity.append(int(kept))
    fields = json.loads(json.dumps(PRESETS["morvit_b16"]))
    fields |= {"image_size": pixels, "num_recursions": steps, "capacity": capacity}
    fields["preprocess"]["resize"] = pixels
    return parse_config(json.dumps(fields), source=f"{pixels} pixels, {steps} steps")


def plan_of(config: Config, buckets: int, checkpoint: Path) -> Plan | None:
    """A plan of several buckets whose smallest has the checkpoint's capacities and serves every picture."""
    if buckets == 1:
        return None
    assert config.capacity is not None
    first, patches = config.capacity, config.num_patches
    shares = [(number + 1) / buckets for number in range(buckets - 2)]
    between = [tuple(int(k + share * (patches - k)) for k in first) for share in shares]
    thresholds = (NOBODY, *(0.0 for _ in first[1:]))
    return ladder(config, [first, *between], thresholds, checkpoint=fingerprint(checkpoint))


def main() -> int:
    """Export, measure and print one axis, or merge the files of several; the exit status."""
    options = _options()
    console = Console(stderr=True)
    if options.merge:
        axes = dict(json.loads(file.read_text(encoding="utf-8"))["growth"] for file in options.merge)
    else:
        bundles = options.bundles or Path("build/growth")
        numbers, make = AXES[options.axis]
        folders = [make(bundles, number, lambda text: console.print(text)) for number in numbers]
        if options.export_only:
            return 0
        results = _measure(options, numbers, folders, console)
        points = [_point(*one) for one in zip(numbers, (m for r in results for m in r.measured), strict=True)]
        axes = {options.axis: [asdict(point) for point in points]}
        print_conditions(results[-1], console)
        raw = [result.as_dict() for result in results]
        write_json(options.out, {"growth": [options.axis, axes[options.axis]], "results": raw})
    growth = {name: [Point(**point) for point in points] for name, points in axes.items()}
    for name, points in growth.items():
        print(table(name, points).markdown())
        print(slopes(name, points), "\n")
    if options.plot:
        content = draw({name: _relative(points) for name, points in growth.items()})
        write_bytes(options.plot, content, replaces=any_file)
    return 0


def table(axis: str, points: Sequence[Point]) -> Table:
    """A row for each point."""
    rows = [
        (
            str(point.at),
            three_digits(point.ms),
            f"{three_digits(point.fastest_ms)}–{three_digits(point.slowest_ms)}",
            count(point.macs),
            three_digits(point.macs / point.ms / 1e6),
            size(point.file_bytes),
            f"{point.anonymous_mib:.0f}",
            three_digits(point.load_ms),
        )
        for point in points
    ]
    columns = (axis, "ms", "blocks' medians", "MACs", "GMAC/s", "files", "anonymous MiB", "load ms")
    return Table(f"Growth with {axis}", columns, rows, numeric=tuple(range(len(columns))))


def slopes(axis: str, points: Sequence[Point]) -> str:
    """The slope of each quantity over the axis."""
    found = ", ".join(
        f"{words} {slope([p.at for p in points], [getattr(p, name) for p in points]):.2f}"
        for name, words in QUANTITIES.items()
    )
    return f"Slopes over {axis}: {found}."


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """The slope of the straight line that fits log y over log x best."""
    a, b = [math.log(value) for value in x], [math.log(value) for value in y]
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((one - mean_a) * (other - mean_b) for one, other in zip(a, b, strict=True))
    return covariance / sum((one - mean_a) ** 2 for one in a)


def _relative(points: Sequence[Point]) -> dict[str, list[tuple[float, float]]]:
    """For the picture: each quantity as a multiple of its first."""
    return {
        words: [(point.at, getattr(point, name) / getattr(points[0], name)) for point in points]
        for name, words in QUANTITIES.items()
    }


def _measure(
    options: argparse.Namespace, numbers: Sequence[int], folders: Sequence[Path], console: Console
) -> list[BenchResult]:
    how: dict[str, Any] = {"threads": options.threads, "runs": 10, "blocks": options.blocks, "starts": 1}
    with console.status("starting") as status:
        if options.axis != "batch":
            return [bench(list(folders), **how, tell=status.update)]
        return [  # a run of many images is long: no need to take turns
            bench(folder, **how, batch=number, warmup=1, tell=status.update)
            for number, folder in zip(numbers, folders, strict=True)
        ]


def _point(at: int, one: MeasuredBundle) -> Point:
    medians = one.block_medians_ms
    return Point(
        at=at,
        ms=one.latency_ms["p50"],
        fastest_ms=min(medians),
        slowest_ms=max(medians),
        macs=min(one.macs.values()) * one.batch,
        file_bytes=one.file_bytes,
        anonymous_mib=one.memory_mib.get("anonymous", float("nan")),
        load_ms=one.start_ms("load_ms"),
    )


def _pixels(folder: Path, pixels: int, tell: Callable[[str], None]) -> Path:
    return _exported(folder, f"pixels-{pixels}", config_of(pixels=pixels), tell)


def _steps(folder: Path, steps: int, tell: Callable[[str], None]) -> Path:
    return _exported(folder, f"steps-{steps}", config_of(steps=steps), tell)


def _batch(folder: Path, batch: int, tell: Callable[[str], None]) -> Path:
    return _exported(folder, "batch", config_of(), tell, batch="dynamic")


def _buckets(folder: Path, buckets: int, tell: Callable[[str], None]) -> Path:
    return _exported(folder, f"buckets-{buckets}", config_of(), tell, buckets=buckets)


def _exported(
    folder: Path, name: str, config: Config, tell: Callable[[str], None], *, buckets: int = 1, **how: Any
) -> Path:
    if config == config_of() and buckets == 1 and not how:
        name = "base"  # the point that three axes share
    bundle, checkpoint = folder / name, folder / f"{name}-checkpoint"
    if not (bundle / MANIFEST).is_file():
        tell(f"exporting {name}")
        if not checkpoint.exists():
            save_checkpoint(init_model(config, seed=0), checkpoint)
        plan = plan_of(config, buckets, checkpoint)
        export(checkpoint, bundle, plan=plan, limit=1, **how)
    return bundle


AXES: dict[str, tuple[tuple[int, ...], Callable[[Path, int, Callable[[str], None]], Path]]] = {
    "pixels": (PIXELS, _pixels),
    "batch": (BATCHES, _batch),
    "buckets": (BUCKETS, _buckets),
    "steps": (STEPS, _steps),
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="How MoR-ViT-B/16 grows with pixels, batch, buckets and steps."
    )
    parser.add_argument("--axis", choices=AXES, help="what to measure")
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FILE", help="files of --out to show together"
    )
    parser.add_argument("-o", "--out", type=Path, help="JSON file to write, with every raw sample")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    parser.add_argument("--bundles", type=Path, help="folder to keep the bundles in, and to take them from")
    parser.add_argument("--export-only", action="store_true", help="fill --bundles and measure later")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--blocks", type=int, default=5)
    options = parser.parse_args()
    if bool(options.axis) == bool(options.merge):
        raise ConfigError("give --axis to measure, or --merge with files of --out; not both")
    return options


if __name__ == "__main__":
    run(main)
