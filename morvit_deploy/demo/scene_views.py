"""Tables of the scenes. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.demo.examples import ADAPTIVE, DENSE, FIXED, THRESHOLDS
from morvit_deploy.demo.gain import RULE, Gain, Way
from morvit_deploy.inspecting.views import survey_tables
from morvit_deploy.model.answers.accuracy import wilson
from morvit_deploy.planning.front import front_table
from morvit_deploy.report import Picture, Table, cost_in, count, numbered, share, three_digits
from morvit_deploy.verifying.views import parity_tables, structure_table

if TYPE_CHECKING:
    from morvit_deploy.demo.scenes import ScenesRun

FILE = "scenes.png"
COLUMNS = {ADAPTIVE: "adaptive ms", FIXED: "fixed ms", DENSE: "every token ms"}

Floats = NDArray[np.float64]


def scenes_picture(folder: Path) -> Picture:
    """The picture that the demo drew in `folder`."""
    caption = (
        "Above: scenes, the steps that each patch ran (warm is deep), and the bucket that served the scene. Below: "
        "means of all scenes with so many digits."
    )
    return Picture("Scenes by number of digits", folder / FILE, caption)


def objects_table(run: ScenesRun) -> Table:
    """Buckets, cost and time by number of objects."""
    timed = {} if run.timed is None else run.timed.ms
    rows = [_objects_row(run, int(number), timed) for number in np.unique(run.scenes.objects)]
    columns = ("digits", "images", "buckets", "MACs", *(COLUMNS[name] for name in timed))
    fitted, macs = run.scenes.fitted, run.gain.adaptive.macs
    caption = f"By adaptive routing, whose buckets were fitted to {int(fitted.sum())} of these images"
    if not fitted.all():
        caption += f" (mean cost of the others: {cost_in(float(macs[~fitted].mean()), 'MACs')})"
    caption += ". `full again`: the bucket was too small, and `full` ran after it."
    if FIXED in run.ways:
        caption += f" fixed: {run.ways[FIXED].name}."
    if run.timed is not None:
        caption += f" ms: {'; '.join([run.timed.measured, *run.timed.warnings])}."
    numeric = tuple(i for i in range(len(columns)) if i != 2)
    return Table("Adaptive routing by number of digits", columns, rows, numeric, caption)


def _objects_row(run: ScenesRun, number: int, timed: Mapping[str, Floats]) -> tuple[str, ...]:
    own = run.scenes.objects == number
    names = [bucket.name for bucket in run.plan.buckets]
    pairs = zip(run.scenes.bucket[own], run.scenes.overflow[own], strict=True)
    served = Counter(names[bucket] + " again" * bool(overflow) for bucket, overflow in pairs)
    return (
        str(number),
        str(int(own.sum())),
        ", ".join(f"{name} {served[name]}" for name in sorted(served)),
        count(run.gain.macs_of(run.gain.adaptive, number)),
        *(three_digits(float(ms[own].mean())) for ms in timed.values()),
    )


def ways_table(gain: Gain) -> Table:
    """Every way to route the same images, cheapest first, and whether it is as accurate as adaptive routing."""
    ways = sorted((gain.adaptive, *gain.fixed, gain.dense), key=lambda way: way.mean_macs)
    rows = [_way_row(gain, way) for way in ways]
    columns = ("model", "routing", "scale", "top-1", "95 % interval", "MACs", "× adaptive", "result")
    title = f"Adaptive routing against fixed schedules, {numbered(len(gain.objects), 'scene')}"
    caption = f"scale: relative to the model's own capacity. {RULE}"
    return Table(title, columns, rows, numeric=(2, 3, 4, 5, 6), caption=caption)


def _way_row(gain: Gain, way: Way) -> tuple[str, ...]:
    result = "as accurate" if way.as_accurate_as(gain.adaptive) else "less accurate"
    return (
        way.checkpoint,
        way.routing,
        "" if way.scale is None else f"{way.scale:g}×",
        share(way.top1),
        str(wilson(way.top1, len(way.right))),
        count(way.mean_macs),
        f"{way.mean_macs / gain.adaptive.mean_macs:.2f}×",
        "" if way is gain.adaptive else result + ", cheapest" * (way is gain.rival),
    )


def scene_details(run: ScenesRun) -> list[Table]:
    """What `inspect` shows, and of the adaptive bundle the calibration's front and the verification."""
    inspected = [] if run.survey is None else survey_tables(run.survey, run.config)
    front, data = front_table(run.calibrated), run.verifications[ADAPTIVE].as_dict()
    own = [
        replace(front, caption=f"{run.calibrated.conclusion} {front.caption}"),
        structure_table(data["structure"]),
        *parity_tables(data),
    ]
    return [
        *(replace(table, title=f"{THRESHOLDS}: {table.title}") for table in inspected),
        *(replace(table, title=f"{ADAPTIVE}: {table.title}") for table in own),
    ]
