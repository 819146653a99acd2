"""Tables of the scenes. No torch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from morvit_deploy.demo.examples import ADAPTIVE, FIXED
from morvit_deploy.demo.gain import RULE, Gain, Way
from morvit_deploy.model.accuracy import wilson
from morvit_deploy.planning.front import front_table
from morvit_deploy.report import Picture, Table, count, numbered, share, three_digits
from morvit_deploy.verifying.views import parity_tables, structure_table

if TYPE_CHECKING:
    from morvit_deploy.demo.scenes import ScenesRun

FILE = "scenes.png"


def scenes_picture(folder: Path) -> Picture:
    """The picture that the demo drew in `folder`."""
    caption = (
        "Above: scenes, the steps that each patch ran (warm is deep), and the bucket that served the scene. Below: "
        "means of all scenes with so many digits."
    )
    return Picture("Scenes by number of digits", folder / FILE, caption)


def objects_table(run: ScenesRun) -> Table:
    """Cost, buckets and time by number of objects."""
    names = [*run.ways] if run.timed is not None else []
    rows = [_objects_row(run, int(number), names) for number in np.unique(run.scenes.objects)]
    times = [f"ms, {name.removeprefix('scenes-')}" for name in names]
    columns = ("digits", "images", "buckets", "top-1", "MACs", *times)
    calibrated = (run.plan.calibration or {}).get("images", 0)
    caption = (
        f"Adaptive routing, whose buckets were fitted to {calibrated} of these images. `full again`: the bucket was "
        "too small, and `full` ran after it."
    )
    if FIXED in run.ways:
        caption += f" fixed: {run.ways[FIXED].name}."
    if run.timed is not None:
        caption += f" ms: {'; '.join([run.timed.measured, *run.timed.warnings])}."
    numeric = tuple(i for i in range(len(columns)) if i != 2)
    return Table("Adaptive routing by number of digits", columns, rows, numeric, caption)


def _objects_row(run: ScenesRun, number: int, timed: list[str]) -> tuple[str, ...]:
    own = run.scenes.objects == number
    names = [bucket.name for bucket in run.plan.buckets]
    pairs = zip(run.scenes.bucket[own], run.scenes.overflow[own], strict=True)
    served = Counter(names[bucket] + " again" * bool(overflow) for bucket, overflow in pairs)
    adaptive = run.gain.adaptive
    times = [three_digits(float(run.timed.ms[name][own].mean())) for name in timed if run.timed is not None]
    return (
        str(number),
        str(int(own.sum())),
        ", ".join(f"{name} {served[name]}" for name in sorted(served)),
        share(float(adaptive.right[own].mean())),
        count(run.gain.macs_of(adaptive, number)),
        *times,
    )


def ways_table(gain: Gain) -> Table:
    """Every way to route the same images, cheapest first, and whether it is as accurate as adaptive routing."""
    ways = sorted((gain.adaptive, *gain.fixed, gain.dense), key=lambda way: way.mean_macs)
    rows = [_way_row(gain, way) for way in ways]
    columns = ("routing", "top-1", "95 % interval", "MACs", "× adaptive", "result")
    title = f"Adaptive routing against fixed schedules, {numbered(len(gain.objects), 'scene')}"
    return Table(title, columns, rows, numeric=(1, 2, 3, 4), caption=RULE)


def _way_row(gain: Gain, way: Way) -> tuple[str, ...]:
    result = "as accurate" if way.as_accurate_as(gain.adaptive) else "less accurate"
    if way is gain.rival:
        result = "the cheapest of the same accuracy"
    return (
        way.name,
        share(way.top1),
        str(wilson(way.top1, len(way.right))),
        count(way.mean_macs),
        f"{way.mean_macs / gain.adaptive.mean_macs:.2f}×",
        "" if way is gain.adaptive else result,
    )


def scene_details(run: ScenesRun) -> list[Table]:
    """The calibration's front, and the verification of every bundle."""
    tables = [replace(front_table(run.calibrated), title=f"{ADAPTIVE}: Accuracy/cost trade-off")]
    for name, verification in run.verifications.items():
        data = verification.as_dict()
        parts = [structure_table(data["structure"]), *parity_tables(data)]
        tables += [replace(table, title=f"{name}: {table.title}") for table in parts]
    return tables
