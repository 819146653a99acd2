"""Top-1 by MACs of the models that were trained on scenes, as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = ("#1f6fb4", "#c0392b", "#2e8b57")
GREY = "#858b93"
MEGA = 1e6
OTHER = "thresholds of other budgets"


def draw(rows: Sequence[Mapping[str, Any]], allowed: float) -> bytes:
    """A curve for each model's top-k and a mark for each adaptive point, with 95 % intervals: PNG bytes.

    `rows` have the fields of `scene_budgets.Row`. The line is `allowed` points below every token in every step.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained")
    axes = figure.subplots()
    every = next(row for row in rows if row["form"] == "every token")
    axes.axhline(100 * every["top1"] - allowed, color=GREY, lw=1, ls="--")
    axes.annotate(
        f"{allowed} points below every token in every step ({every['macs'] / MEGA:.1f} M MACs)",
        (0, 100 * every["top1"] - allowed), xycoords=("axes fraction", "data"), xytext=(4, -9),
        textcoords="offset points", fontsize=7.5, color=GREY,
    )  # fmt: skip
    for colour, name in zip(COLOURS, dict.fromkeys(row["model"] for row in rows), strict=False):
        fixed = [row for row in rows if row["model"] == name and row["form"] == "top-k"]
        own = [row for row in rows if row["model"] == name and row["form"] in ("thresholds", "depths")]
        other = [row for row in rows if row["model"] == name and row["form"] == OTHER]
        if other:
            axes.plot(
                [row["unpadded"] / MEGA for row in other], [100 * row["top1"] for row in other], color=colour, lw=1,
                ls=":", marker="x", ms=4, label=f"{name}, {OTHER}, without padding",
            )  # fmt: skip
        if fixed:
            axes.errorbar(
                [row["macs"] / MEGA for row in fixed], [100 * row["top1"] for row in fixed],
                [row["plus_minus"] for row in fixed], color=colour, lw=1.2, marker=".", ms=5, label=f"{name}, top-k",
            )  # fmt: skip
        for row in own:
            axes.plot(
                [row["unpadded"] / MEGA, row["macs"] / MEGA],
                [100 * row["top1"]] * 2,
                color=colour,
                lw=1,
                ls=":",
            )
            axes.errorbar(
                row["macs"] / MEGA, 100 * row["top1"], row["plus_minus"], color=colour, marker="*", ms=12,
                label=f"{name}, {row['form']}, fitted buckets (left: without padding)",
            )  # fmt: skip
    axes.set_xlabel("million MACs an image")
    axes.set_ylabel("top-1, %")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
