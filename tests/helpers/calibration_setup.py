"""What tests of calibration share: a checkpoint and a folder of pictures, small units, made-up statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tiny_models import make_config, random_model

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.calibration.buckets.choice import Asked, choose, recommend
from morvit_deploy.calibration.buckets.costs import MacCost
from morvit_deploy.calibration.buckets.plan import draft_plan
from morvit_deploy.calibration.buckets.points import Point, points_of
from morvit_deploy.calibration.routing.histograms import Histogram
from morvit_deploy.calibration.routing.sequence import OWN, SCALES
from morvit_deploy.calibration.routing.statistics import WHOLE, Run, Shard, Statistics, Thresholds
from morvit_deploy.model.answers.accuracy import Floor
from morvit_deploy.model.checkpoint import save_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.planning.rounds import Calibrated

UNIT = 4  # images, in place of the real one: a few pictures make several units
COUNT = 14  # pictures: three units and a half


def save_model(folder: Path, seed: int = 0, dead: bool = False, **changes: Any) -> Path:
    """A tiny checkpoint; with `dead`, its routers answer their bias to everything."""
    model = random_model(make_config(**changes), seed)
    if dead:
        for router in model.all_routers():
            for layer in router.linears():
                layer.weight.zero_()
    save_checkpoint(model, folder)
    return folder


def save_pictures(folder: Path, count: int = COUNT, labelled: bool = False, size: int = 40) -> Path:
    """Smooth pictures 000.png …, of classes 0 … 9 in turn."""
    folder.mkdir()
    for number, picture in enumerate(synthetic_images(count, size)):
        Image.fromarray(picture).save(folder / f"{number:03}.png")
    if labelled:
        rows = [f"{number:03}.png,{number % 10}" for number in range(count)]
        (folder / "labels.csv").write_text("\n".join(["file,label", *rows]))
    return folder


def break_picture(folder: Path, number: int) -> str:
    """The name of a picture that can no longer be read."""
    name = f"{number:03}.png"
    (folder / name).write_bytes(b"not a picture")
    return name


def run_of(mode: str = "threshold", count: int = 6, scales: tuple[float, ...] = SCALES) -> Run:
    return Run("c" * 64, "d" * 64, count, mode, scales)


def logits_of(
    logits: list[float],
    round: int = 0,
    shard: Shard = WHOLE,
    thresholds: tuple[Thresholds, ...] | None = None,
    run: Run | None = None,
    images: int = 3,
) -> Statistics:
    """A round of logits, the same for each scale."""
    run = run or run_of()
    histograms = [Histogram() for _ in run.scales]
    for histogram in histograms:
        histogram.add(np.array(logits))
    under = ((),) * len(run.scales) if thresholds is None else thresholds
    return Statistics(run, round, (shard,), under, images, 5, histograms)


def last_of(config: Config, counts: Any, run: Run | None = None, **tallies: Any) -> Statistics:
    """A last round: `counts` (images, steps) of each scale, all answers as trained and without labels."""
    run = run or run_of()
    table = np.repeat(np.asarray(counts, dtype=np.uint8)[:, None], len(run.scales), axis=1)
    images, every = len(table), np.full(len(run.scales), len(table))
    told: dict[str, Any] = {"labelled": 0, "right": 0}
    for kind in ("topk", "threshold", "depth"):
        told |= {f"{kind}.alike": every, f"{kind}.right": 0 * every}
    told["threshold.decisions"] = np.full((len(run.scales), config.num_steps), images * config.num_patches)
    return Statistics(run, 0, (WHOLE,), images=images, counts=table, tallies=told | tallies)


def own_or_within(points: list[Point], kind: str, **budget: float) -> Point:
    """The point of the trained capacities, of chosen depths the preferred one, or the best within a budget."""
    scale = None if budget or kind == "depth" else OWN
    return choose(points, Floor.on(1, None), Asked(kind, scale=scale, **budget))  # type: ignore[arg-type]  # two names


COUNTS = [[9, 5, 2], [4, 4, 1], [12, 6, 3], [12, 10, 6], [9, 4, 2]]


def calibrated(mode: str = "threshold", labelled: bool = False) -> Calibrated:
    """The plan of the trained capacities and its front, from made-up statistics."""
    routing = "token_choice" if mode == "depth" else "expert_choice"
    config = make_config(routing=routing, num_recursions=1 if mode == "depth" else 3)
    run = run_of(mode, scales=(OWN,) if mode == "depth" else SCALES)
    scales = len(run.scales)
    tallies: dict[str, Any] = {"labelled": 5 * labelled, "right": 4}
    for kind in ("topk", "threshold", "depth"):
        tallies |= {f"{kind}.{what}": np.minimum(np.arange(scales), 5) for what in ("right", "alike")}
    last = last_of(config, COUNTS, run, **tallies)
    points = points_of(config, last, ((0.1, 0.2, 0.3),) * scales, MacCost(config), 2)
    floor, chosen = Floor.on(last.images, last.trained_top1), own_or_within(points, mode)
    return Calibrated(
        draft_plan(config, last, chosen, "macs"), chosen, points, "MACs", 4e5, last.trained_top1, [], [], floor,
        recommend(points, floor),
    )  # fmt: skip
