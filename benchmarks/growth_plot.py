"""Growth of time, MACs, files, memory and loading over four axes, as one picture that a phone can show."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

STYLES = {  # quantity -> color, marker
    "time": ("#1f6fb4", "o"),
    "MACs": ("#c0392b", "s"),
    "files": ("#858b93", "^"),
    "memory": ("#5a9a4c", "v"),
    "loading": ("#d08a1d", "D"),
}
LEAST, MOST = 0.8, 4.4  # of every panel, so that small changes look small
XLABELS = {
    "pixels": "pixels of a side",
    "batch": "images a run",
    "buckets": "buckets",
    "steps": "steps R",
}


def draw(axes: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]]) -> bytes:
    """PNG bytes: a panel for each axis, both scales logarithmic, every quantity relative to its first."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

    figure = Figure(figsize=(6.4, 6.4), dpi=110, layout="constrained")
    panels = figure.subplots(2, 2).flat
    for panel, (name, quantities) in zip(panels, axes.items(), strict=False):
        for quantity, points in quantities.items():
            color, marker = STYLES[quantity]
            panel.plot(*zip(*points, strict=True), marker=marker, color=color, lw=1.6, ms=5, label=quantity)
        panel.set_xscale("log")
        panel.set_yscale("log", base=2)
        values = [y for points in quantities.values() for _, y in points]
        panel.set_ylim(min(LEAST, 0.95 * min(values)), max(MOST, 1.1 * max(values)))
        panel.xaxis.set_major_locator(FixedLocator(sorted({x for p in quantities.values() for x, _ in p})))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}×"))
        panel.set_xlabel(XLABELS[name], fontsize=12)
        panel.tick_params(labelsize=11)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper center", ncols=5, frameon=False, fontsize=11, columnspacing=1.2
    )
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
