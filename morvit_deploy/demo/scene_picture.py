"""One picture of the scenes: by content, with depth maps and buckets, and what they cost. No torch."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from morvit_deploy.demo.examples import ADAPTIVE, DENSE, FIXED
from morvit_deploy.demo.wording import headline
from morvit_deploy.files import OWN_PNG
from morvit_deploy.inspecting.depth_panels import (
    FAINT,
    INK,
    Scale,
    grid_of,
    image,
    overlay,
    scale_of,
    write,
)
from morvit_deploy.report import numbered, share, three_digits

if TYPE_CHECKING:
    from morvit_deploy.demo.scenes import Scenes, ScenesRun

SHOWN = 5  # scenes: few, so that a phone shows them large enough
WIDTH, HEIGHT, DPI = 6.6, 7.8, 170  # inches, dots per inch
SIDE, GAP, LEFT = 1.16, 0.08, 0.26  # inches: of a scene, between scenes, before them
SMALL, TEXT = 8.5, 9.5  # font sizes
LINES: dict[str, dict[str, Any]] = {  # of each bundle: color, marker, style
    ADAPTIVE: {"color": "#1f6fb4", "marker": "o", "ls": "-"},
    FIXED: {"color": "#c8641b", "marker": "s", "ls": "-"},
    DENSE: {"color": "#6b7178", "marker": "", "ls": "--"},
}

Floats = NDArray[np.float64]


def draw_scenes(run: ScenesRun) -> bytes:
    """A PNG of scenes, depth maps, and cost by number of digits; without times, MACs alone are plotted."""
    content = io.BytesIO()
    _figure(run).savefig(content, format="png", metadata=OWN_PNG)
    return content.getvalue()


def shown_scenes(scenes: Scenes) -> list[int]:
    """The images to show, from few digits to many: of each number the first typical one."""
    numbers = np.unique(scenes.objects)
    wanted = numbers[np.linspace(0, len(numbers) - 1, min(SHOWN, len(numbers))).round().astype(int)]
    return [_typical(scenes, int(number)) for number in wanted]


def _typical(scenes: Scenes, number: int) -> int:
    """The first image of so many digits that is classified right and runs in the bucket of most of them."""
    own = np.flatnonzero(scenes.objects == number)
    usual = np.bincount(scenes.bucket[own]).argmax()
    good = own[(scenes.found == scenes.labels)[own] & (scenes.bucket[own] == usual) & ~scenes.overflow[own]]
    return int(good[0] if len(good) else own[0])


def _figure(run: ScenesRun) -> Figure:
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    write(
        figure,
        LEFT,
        HEIGHT - 0.34,
        "Scenes by number of digits: depth, bucket, cost",
        size=12.5,
        weight="bold",
    )
    write(figure, LEFT, HEIGHT - 0.6, headline(run.gain), size=TEXT, color=FAINT)
    _draw_scenes(figure, run, top=HEIGHT - 1.0)
    charts = {"million MACs an image": {name: way.macs / 1e6 for name, way in run.ways.items()}}
    if run.timed is not None:
        charts["milliseconds an image"] = run.timed.ms
    for number, (what, values) in enumerate(charts.items()):
        box = (0.45 + number * WIDTH / 2, 1.35, WIDTH / 2 - 0.7, 1.9)
        _chart(figure, box, what, run.scenes.objects, values)
    _legend(figure, run)
    return figure


def _draw_scenes(figure: Figure, run: ScenesRun, top: float) -> None:
    """Scenes above their depth maps, and below them the bucket of each."""
    scenes, scale = run.scenes, scale_of(run.scenes.depth, run.config.num_steps)
    upper, lower = top - SIDE, top - 2 * SIDE - GAP
    for column, i in enumerate(shown_scenes(scenes)):
        left = LEFT + column * (SIDE + GAP)
        map_of = overlay(scenes.pixels[i], scenes.depth[i], scale)
        bucket = run.plan.buckets[scenes.bucket[i]].name + " again" * bool(scenes.overflow[i])
        write(figure, left, top + 0.07, numbered(int(scenes.objects[i]), "digit"), size=TEXT)
        image(figure, (left, upper, SIDE), scenes.pixels[i] / 255)
        image(figure, (left, lower, SIDE), map_of, grid_of(scenes.depth[i], scenes.pixels[i]))
        write(figure, left, lower - 0.2, f"bucket {bucket}", size=TEXT)
        write(figure, left, lower - 0.38, f"{run.gain.adaptive.macs[i] / 1e6:.2f} M MACs", size=SMALL)
    _depth_scale(figure, scale, lower - 0.66)


def _depth_scale(figure: Figure, scale: Scale, bottom: float) -> None:
    """The colour of each depth."""
    write(figure, LEFT, bottom, "steps that a patch ran", size=SMALL, color=FAINT)
    for place, depth in enumerate(scale.depths):
        left = LEFT + 1.62 + 0.42 * place
        image(figure, (left, bottom - 0.02, 0.15), scale.colours(np.array([[depth]])))
        write(figure, left + 0.2, bottom, str(depth), size=SMALL, color=FAINT)


def _chart(
    figure: Figure,
    box: tuple[float, float, float, float],
    what: str,
    objects: NDArray[np.int64],
    values: Mapping[str, Floats],
) -> None:
    """Means of values (images,) by number of digits, a line for each bundle."""
    left, bottom, width, height = box
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT))
    numbers = np.unique(objects)
    for name, own in values.items():
        axes.plot(numbers, [own[objects == n].mean() for n in numbers], ms=4, lw=1.6, **LINES[name])
    axes.set_ylim(bottom=0)
    axes.set_xticks(numbers)
    axes.set_xlabel("digits in the scene", fontsize=SMALL, color=INK)
    axes.set_title(what, fontsize=TEXT, color=INK, loc="left")
    axes.tick_params(labelsize=SMALL, labelcolor=INK)
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, run: ScenesRun) -> None:
    """The lines of both charts, with the means over all scenes and top-1."""
    handles = [
        Line2D([], [], ms=4, lw=1.6, label=f"{run.ways[name].name}: {_means(run, name)}", **LINES[name])
        for name in run.ways
    ]
    place = (LEFT / WIDTH - 0.015, 0.1 / HEIGHT)
    figure.legend(handles=handles, loc="lower left", bbox_to_anchor=place, frameon=False, fontsize=SMALL)


def _means(run: ScenesRun, name: str) -> str:
    way = run.ways[name]
    ms = "" if run.timed is None else f", {three_digits(run.timed.mean_ms[name])} ms"
    return f"mean {way.mean_macs / 1e6:.2f} M MACs{ms}; top-1 {share(way.top1)}"
