"""Speed and work of Edge-RecViT over its mean depth, as one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOUR, FAINT, MARK, GREY = "#1f6fb4", "#a9aeb5", "#c0392b", "#858b93"
SMALL = 7.5  # points of type
GIGA = 1e9


@dataclass(frozen=True)
class Point:
    """One mean depth: MACs of an image, and how many times as fast it is as the dense form."""

    asked: float
    mean: float
    within: float
    between: float
    macs: float  # over the mix
    unpadded: float  # if each picture had a bucket of its own
    unseen: float  # pictures that the buckets were not fitted to
    ratio: float
    slowest: float  # of the blocks
    fastest: float


def draw(points: Sequence[Point], dense: float, bar_depth: float, bar: float) -> bytes:
    """Left the speed against the dense form, right the MACs of an image: PNG bytes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 4.0), dpi=150, layout="constrained")
    left, right = figure.subplots(1, 2)
    points = sorted(points, key=lambda point: point.mean)
    _speed(left, points, dense, bar_depth, bar)
    _work(right, points, dense)
    for axes in (left, right):
        axes.set_xlabel("mean depth of the patch tokens, layers of 12")
        axes.set_xlim(1, 13)
        axes.set_xticks(range(2, 13, 2))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=9)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False, fontsize=8.5)
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


def _speed(axes: Axes, points: Sequence[Point], dense: float, bar_depth: float, bar: float) -> None:
    x = [point.mean for point in points]
    ratios = [point.ratio for point in points]
    by_macs = [dense / point.macs for point in points]
    axes.plot(x, by_macs, "--", color=GREY, lw=1.2, label="as the MACs would have it")
    axes.fill_between(
        x, [p.slowest for p in points], [p.fastest for p in points], color=COLOUR, alpha=0.18, lw=0
    )
    axes.plot(
        x, ratios, "o-", color=COLOUR, ms=4.5, lw=1.4, label="measured; shade: slowest to fastest block"
    )
    for point in points:
        axes.annotate(
            f"{point.ratio:.2f}×", (point.mean, point.ratio), xytext=(4, 4), textcoords="offset points",
            ha="left", va="bottom", fontsize=SMALL, color=COLOUR,
        )  # fmt: skip
    axes.plot([bar_depth], [bar], "_", color=MARK, ms=16, mew=2)
    axes.annotate(
        f"bar {bar}×", (bar_depth, bar), xytext=(0, -5), textcoords="offset points", ha="center", va="top",
        fontsize=SMALL, color=MARK,
    )  # fmt: skip
    axes.axhline(1, color=FAINT, lw=1, zorder=1)
    axes.set_ylim(0, 1.08 * max(*ratios, *by_macs))
    axes.set_ylabel("times as fast as the dense form")


STYLES = {  # the field of a point -> its label and line
    "unseen": ("pictures that the buckets were not fitted to", FAINT, "-", "o"),
    "macs": ("over the mix, pads included", COLOUR, "-", "o"),
    "unpadded": ("a bucket for each picture: lower bound", GREY, "--", ""),
}


def _work(axes: Axes, points: Sequence[Point], dense: float) -> None:
    x = [point.mean for point in points]
    for name, (label, color, line, marker) in STYLES.items():
        y = [getattr(point, name) / GIGA for point in points]
        axes.plot(x, y, ms=4.5, lw=1.4, label=label, color=color, ls=line, marker=marker)
    axes.axhline(dense / GIGA, color=FAINT, ls=":", lw=1, zorder=1)
    axes.text(
        1.2, dense / GIGA, f"every token in every layer: {dense / GIGA:.2f}", va="bottom", fontsize=SMALL
    )
    axes.set_ylim(0, 1.1 * dense / GIGA)
    axes.set_ylabel("MACs of an image, billions")
