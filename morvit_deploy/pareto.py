"""What a calibration found, to choose by looking: worth against cost, as a picture and as tables. No torch."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.report import Picture, Report, Table, count, share

if TYPE_CHECKING:
    from morvit_deploy.planning import Calibrated

NAMES = {
    "topk": "top-k: the same tokens for every image",
    "threshold": "thresholds with fitted buckets",
    "depth": "fitted buckets",
}
COLOURS = {"topk": "#888888", "threshold": "#1f6fb4", "depth": "#1f6fb4"}


def draw(calibrated: Calibrated) -> bytes:
    """Worth against expected cost of every point, the chosen one ringed: PNG bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for kind in dict.fromkeys(point.kind for point in calibrated.points):
        points = sorted(
            (point for point in calibrated.points if point.kind == kind), key=lambda point: point.expected
        )
        costs = [_axis(point.expected, calibrated.unit) for point in points]
        axes.plot(costs, [100 * p.worth for p in points], "o-", color=COLOURS[kind], label=NAMES[kind], ms=5)
    chosen = calibrated.chosen
    at = (_axis(chosen.expected, calibrated.unit), 100 * chosen.worth)
    axes.plot(*at, "o", ms=13, mfc="none", mec="#c0392b", mew=2, label="this plan")
    axes.axvline(
        _axis(calibrated.dense, calibrated.unit),
        color="#bbbbbb",
        ls="--",
        lw=1,
        label="every token in every step",
    )
    labelled = chosen.top1 is not None
    if labelled and calibrated.trained_top1 is not None:
        axes.axhline(100 * calibrated.trained_top1, color="#bbbbbb", ls=":", lw=1, label="as trained")
    axes.set_xlabel(f"expected cost of an image, {_axis_name(calibrated)}")
    axes.set_ylabel("top-1, %" if labelled else "top-1 agreement with the model as trained, %")
    axes.set_xlim(left=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def calibration_report(calibrated: Calibrated, plan_file: Path, picture: Path) -> Report:
    """The plan, its buckets and the front."""
    parts: list[Table | Picture] = [_plan_table(calibrated, plan_file)]
    if calibrated.plan.mode != "topk":
        parts.append(_bucket_table(calibrated))
    parts += [front_table(calibrated), Picture("Pareto front", picture)]
    return Report(f"Calibration: {plan_file}", parts)


def front_table(calibrated: Calibrated) -> Table:
    """Every point, cheapest first; the chosen one is marked."""
    rows = [
        (
            "►" if point is calibrated.chosen else "",
            point.kind,
            "" if point.scale is None else f"{point.scale:g}",
            _cost(point.expected, calibrated.unit),
            f"{calibrated.dense / point.expected:.2f}×",
            "" if point.top1 is None else share(point.top1),
            "" if point.agreement is None else share(point.agreement),
            "" if point.kind != "threshold" else share(point.overflow),
            "" if point.ladder is None else str(len(point.ladder.schedules)),
        )
        for point in sorted(calibrated.points, key=lambda point: point.expected)
    ]
    columns = ("", "routing", "scale", "cost", "cheaper", "top-1", "agreement", "overflow", "buckets")
    caption = (
        "scale: of the checkpoint's capacities; cheaper: than every token in every step; agreement: top-1 with the "
        "model as trained; on the calibration images"
    )
    return Table("Worth and cost", columns, rows, numeric=(2, 3, 4, 5, 6, 7, 8), caption=caption)


def _plan_table(calibrated: Calibrated, plan_file: Path) -> Table:
    plan, facts = calibrated.plan, calibrated.plan.calibration or {}
    rows = [
        ("plan", str(plan_file)),
        ("mode", plan.mode),
        ("images", f"{facts['images']}" + (f", {facts['unreadable']} unreadable" if calibrated.bad else "")),
        ("expected cost", f"{_cost(calibrated.chosen.expected, calibrated.unit)} an image"),
    ]
    if plan.thresholds is not None:
        taus = ", ".join("–" if threshold is None else f"{threshold:.4g}" for threshold in plan.thresholds)
        rows.append(("thresholds", taus))
    if "keep_share" in facts:
        rows.append(("tokens kept, mean", ", ".join(share(kept) for kept in facts["keep_share"])))
    if "decision_agreement" in facts:
        agreement = ", ".join(share(alike) for alike in facts["decision_agreement"])
        rows.append(("decisions as trained", agreement))
    if calibrated.trained_top1 is not None:
        rows.append(
            ("top-1", f"{_share(calibrated.chosen.top1)}; as trained {share(calibrated.trained_top1)}")
        )
    rows.append(("top-1 agreement", _share(calibrated.chosen.agreement)))
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
            f"chosen for: by the tokens that run step {plan.lead + 1}; {share(chosen.overflow)} of the images need "
            "more than their bucket holds and are run again in `full`"
        )
    columns = ("bucket", "holds", "MACs", "images", "chosen for")
    return Table("Buckets", columns, rows, numeric=(2, 3, 4), caption=caption)


def _cost(value: float, unit: str) -> str:
    return f"{count(value)}MACs" if unit == "MACs" else f"{value:#.3g} ms"


def _axis(value: float, unit: str) -> float:
    return value / 1e6 if unit == "MACs" else value


def _axis_name(calibrated: Calibrated) -> str:
    return "million MACs" if calibrated.unit == "MACs" else "milliseconds"


def _share(value: float | None) -> str:
    return "" if value is None else share(value)
