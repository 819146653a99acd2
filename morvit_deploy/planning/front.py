"""The accuracy/cost trade-off of a calibration, as a picture and as tables. No torch."""

from __future__ import annotations

import io
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.adaptivity.views import adaptivity_table
from morvit_deploy.calibration.buckets.choice import is_dominated
from morvit_deploy.files import OWN_PNG
from morvit_deploy.report import Picture, Report, Table, cost_in, count, share

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from morvit_deploy.calibration.buckets.points import Point
    from morvit_deploy.planning.calibrated import Calibrated

Floats = NDArray[np.float64]

NAMES = {
    "topk": "top-k: the same number of tokens for every image",
    "threshold": "thresholds: easy images run in a smaller bucket",
    "depth": "depths chosen by the tokens, with fitted buckets",
}
COLOURS = {"topk": "#6b7178", "threshold": "#1f6fb4", "depth": "#1f6fb4"}
FAINT, MARK = "#a9aeb5", "#c0392b"
SMALL = 7.5  # font size
AWAY, RING = 4.0, 8.0  # distance of a label from its point, and from the circled point
# candidate directions of a label from its point, in order of preference
SIDES = np.array([(0, 1), (0, -1), (0.8, -0.8), (-0.8, 0.8), (0.8, 0.8), (-0.8, -0.8), (1, 0), (-1, 0)])
WEIGHT = 5  # cost of overlapping another label, relative to overlapping a line
REACH = 1.0  # `every token` is drawn up to this distance, in units of the points' span
LEAST_SPAN = 1.0  # percentage points: with less, noise would look like a slope


def draw(calibrated: Calibrated) -> bytes:
    """Plot accuracy against expected cost as a PNG, with the scale of each point; the chosen point is circled.

    Dominated points are hollow.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    divisor, unit = _unit(calibrated)
    kinds = dict.fromkeys(point.kind for point in calibrated.points)
    cheapest = sorted(calibrated.points, key=lambda point: point.expected)
    lines = [[point for point in cheapest if point.kind == kind] for kind in kinds]
    places = [np.array([(p.expected / divisor, 100 * p.accuracy) for p in line]) for line in lines]
    for kind, line, place in zip(kinds, lines, places, strict=True):
        axes.plot(*place.T, "o-", color=COLOURS[kind], ms=4.5, lw=1.4, label=NAMES[kind], zorder=3)
        hollow = place[[is_dominated(point, calibrated.points) for point in line]]
        axes.plot(*hollow.T, "o", color="white", ms=2.7, zorder=3)
    chosen = calibrated.chosen
    at = (chosen.expected / divisor, 100 * chosen.accuracy)
    axes.plot(*at, "o", ms=12, mfc="none", mec=MARK, mew=1.8, label="this plan", zorder=4)
    _set_ranges(axes, calibrated, divisor)
    labelled = chosen.top1 is not None
    if labelled and calibrated.trained_top1 is not None:
        level = 100 * calibrated.trained_top1
        axes.axhline(level, color=FAINT, ls=":", lw=1, zorder=1)
        right = axes.get_yaxis_transform()
        axes.text(1.01, level, "as\ntrained", transform=right, va="center", fontsize=SMALL)
    images = (calibrated.plan.calibration or {}).get("images", 0)
    axes.set_xlabel(f"expected cost of an image, {unit}, on {images:,} calibration images")
    axes.set_ylabel("top-1, %" if labelled else "agreement with the trained model, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    figure.legend(loc="outside upper left", frameon=False, fontsize=8.5, ncols=2, columnspacing=1.6)
    figure.draw_without_rendering()  # the layout settles, so that labels can be placed
    _label(axes, lines, places, chosen)
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata=OWN_PNG)
    return content.getvalue()


def _label(axes: Axes, lines: list[list[Point]], places: list[Floats], chosen: Point) -> None:
    """Label each point with its scale, where it overlaps the fewest lines, points and other labels."""
    legend = (
        "×: of the trained capacities; hollow: dominated"
        if chosen.scale is not None
        else "numbers of buckets"
    )
    axes.text(0, 1.01, legend, transform=axes.transAxes, fontsize=SMALL)
    dots = axes.figure.dpi / 72  # pixels in a point of type
    drawn = np.concatenate([axes.transData.transform(_along(place)) for place in places]) / dots
    for line, place in zip(lines, places, strict=True):
        for point, (x, y) in zip(line, axes.transData.transform(place) / dots, strict=True):
            text = f"{point.scale:g}×" if point.scale is not None else str(len(_schedules(point)))
            half = np.array([0.3 * SMALL * len(text) + 1, 0.5 * SMALL + 1])  # of the label's width and height
            tried = np.array([x, y]) + SIDES * (half + (RING if point is chosen else AWAY))
            inside = (np.abs(drawn - tried[:, None]) < half).all(axis=2).sum(axis=1)
            best = tried[inside.argmin()]
            axes.annotate(
                text, best * dots, xycoords="figure pixels", ha="center", va="center", fontsize=SMALL,
                color=COLOURS[point.kind],
            )  # fmt: skip
            corners = best + half * np.array(list(product((-1, 0, 1), repeat=2)))
            drawn = np.concatenate([drawn, *[corners] * WEIGHT])


def _schedules(point: Point) -> tuple[tuple[int, ...], ...]:
    return () if point.ladder is None else point.ladder.schedules


def _along(place: Floats) -> Floats:
    """Interpolate many points on the line through points (n, 2)."""
    at = np.linspace(0, len(place) - 1, 60 * len(place))
    return np.stack([np.interp(at, np.arange(len(place)), column) for column in place.T], axis=1)


def _set_ranges(axes: Axes, calibrated: Calibrated, divisor: float) -> None:
    """Fit the axes to the points; the cost of every token is drawn if it is near and stated otherwise."""
    costs = [point.expected / divisor for point in calibrated.points]
    dense, low, high = calibrated.dense / divisor, min(costs), max(costs)
    near = dense <= high + REACH * max(high - low, 0.25 * high)
    right = max(high, dense) if near else high
    margin = 0.06 * max(right - low, 0.1 * right)
    axes.set_xlim(low - margin, right + margin)
    text = "every token in every step" if near else f"every token in every step: {dense:.3g} →"
    if near:
        axes.axvline(dense, color=FAINT, ls="--", lw=1, zorder=1)
    above = axes.get_xaxis_transform()
    axes.text(dense if near else right + margin, 1.01, text, transform=above, ha="right", fontsize=SMALL)
    levels = [100 * point.accuracy for point in calibrated.points]
    levels += [] if calibrated.trained_top1 is None else [100 * calibrated.trained_top1]
    middle, span = (min(levels) + max(levels)) / 2, max(max(levels) - min(levels), LEAST_SPAN)
    axes.set_ylim(middle - 0.6 * span, middle + 0.6 * span)


def _unit(calibrated: Calibrated) -> tuple[float, str]:
    """Return the divisor and the name of the cost axis."""
    if calibrated.unit != "MACs":
        return 1.0, "milliseconds"
    most = max(point.expected for point in calibrated.points)
    return (1e9, "billion MACs") if most >= 1e9 else (1e6, "million MACs")


def calibration_report(
    calibrated: Calibrated, plan_file: Path | None = None, picture: Path | None = None
) -> Report:
    """The conclusion, the front and the plan; the picture of the front is drawn where it is in no file."""
    drawn = None if picture else draw(calibrated)
    front = Picture("Pareto front", picture or Path("pareto.png"), content=drawn, chart=True)
    adaptivity = adaptivity_table(calibrated.adaptivity)
    parts: list[Table | Picture] = [
        *(front, front_table(calibrated), adaptivity),
        _plan_table(calibrated, plan_file),
    ]
    if calibrated.plan.mode != "topk":
        parts.append(_bucket_table(calibrated))
    title = "Calibration" if plan_file is None else f"Calibration: {plan_file}"
    return Report(title, parts, calibrated.conclusion)


def front_table(calibrated: Calibrated) -> Table:
    """Return a row for each point, cheapest first; the chosen one is marked, and each is judged."""
    rows = [
        (
            "►" if point is calibrated.chosen else "",
            str(row),
            point.kind,
            "" if point.scale is None else f"{point.scale:g}",
            cost_in(point.expected, calibrated.unit),
            f"{calibrated.dense / point.expected:.2f}×",
            "" if point.unpadded is None else cost_in(point.unpadded, calibrated.unit),
            _share(point.top1),
            share(point.agreement),
            _standing(point, calibrated),
            "" if point.kind != "threshold" else share(point.overflow),
            "" if point.ladder is None else str(len(point.ladder.schedules)),
        )
        for row, point in enumerate(calibrated.rows, start=1)
    ]
    columns = (
        "",
        "row",
        "routing",
        "scale",
        "cost",
        "cheaper",
        "unpadded",
        "top-1",
        "agreement",
        "result",
        "overflow",
        "buckets",
    )
    caption = (
        "On the calibration images. scale: relative to the checkpoint's capacities; cheaper: than every token in "
        "every step; unpadded: cost without padding, a lower bound for any number of buckets; agreement: top-1 "
        "agreement with the trained model; dominated: another row is as cheap and as accurate, and better in one; "
        f"below floor: {calibrated.floor.of} below {share(calibrated.floor.at_least)}, or a loss beyond chance"
    )
    return Table("Accuracy/cost trade-off", columns, rows, numeric=(4, 5, 6, 7, 8, 10, 11), caption=caption)


def _standing(point: Point, calibrated: Calibrated) -> str:
    if point is calibrated.recommended:
        return "recommended"
    if not calibrated.floor.keeps(point.agreement, point.top1):
        return "below floor"
    return "dominated" if is_dominated(point, calibrated.points) else ""


def _plan_table(calibrated: Calibrated, plan_file: Path | None) -> Table:
    plan, record = calibrated.plan, calibrated.plan.calibration or {}
    rows = [
        *([] if plan_file is None else [("plan", str(plan_file))]),
        ("mode", plan.mode),
        (
            "images",
            f"{record['images']}" + (f", {record['unreadable']} unreadable" if calibrated.bad else ""),
        ),
        ("expected cost", f"{cost_in(calibrated.chosen.expected, calibrated.unit)} per image"),
    ]
    if plan.thresholds is not None:
        taus = ", ".join("–" if threshold is None else f"{threshold:.4g}" for threshold in plan.thresholds)
        rows.append(("thresholds", taus))
    if "keep_share" in record:
        rows.append(("tokens kept, mean", ", ".join(share(kept) for kept in record["keep_share"])))
    if "decision_agreement" in record:
        agreement = ", ".join(share(alike) for alike in record["decision_agreement"])
        rows.append(("decision agreement", agreement))
    if calibrated.trained_top1 is not None:
        rows.append(
            ("top-1", f"{_share(calibrated.chosen.top1)}; trained model {share(calibrated.trained_top1)}")
        )
    rows.append(("top-1 agreement", share(calibrated.chosen.agreement)))
    return Table("Plan", ("what", "value"), rows)


def _bucket_table(calibrated: Calibrated) -> Table:
    plan, chosen = calibrated.plan, calibrated.chosen
    rows = [
        (
            bucket.name,
            ", ".join(map(str, bucket.capacity)),
            f"{count(bucket.macs)}MACs",
            _share(bucket.share),
            "" if bucket.upto is None else f"≤ {bucket.upto}",
        )
        for bucket in plan.buckets
    ]
    caption = ""
    if plan.mode == "threshold":
        caption = (
            f"chosen for: number of tokens that run step {plan.lead + 1}; {share(chosen.overflow)} of the images "
            "overflow their bucket and are run again in `full`"
        )
    columns = ("bucket", "holds", "MACs", "images", "chosen for")
    return Table("Buckets", columns, rows, numeric=(2, 3, 4), caption=caption)


def _share(value: float | None) -> str:
    return "" if value is None else share(value)
