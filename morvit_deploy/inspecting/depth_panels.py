"""The panels of a depth picture: heat map over an image, histogram, mean map. Positions are in inches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from morvit_deploy.bundle.pixels import Pixels

Depth = NDArray[np.integer[Any]]  # (N,) of one image or (n, N) of many, row by row

INK, FAINT = "#26282c", "#858b93"
_DPI = 110
_RAMP = LinearSegmentedColormap.from_list(
    "depth", ("#3552b6", "#3f93d6", "#74cbc6", "#f4e285", "#f58f37", "#cf1d2d")
)
_GAMMA = 0.75  # increases the contrast between the first steps, where most tokens are
_SHADE = 0.5  # fraction of a colour's brightness that follows the image
_SHINE = 0.25  # blend to white in the image's highlights
_TICKS = 13  # largest number of tick labels at the colour bar


Grid = tuple[int, int]  # rows and columns of patches


@dataclass(frozen=True)
class Scale:
    """The range of depths that is drawn, and the colour of each depth."""

    lowest: int
    highest: int

    @property
    def depths(self) -> NDArray[np.int64]:
        """All depths in ascending order."""
        return np.arange(self.lowest, self.highest + 1)

    def colours(self, depth: NDArray[Any]) -> NDArray[np.float64]:
        """Return RGB in [0, 1] (..., 3) for depths (...), which need not be integers."""
        level = (depth - float(self.lowest)) / max(self.highest - self.lowest, 1)
        return np.asarray(_RAMP(level**_GAMMA))[..., :3]

    def shares(self, depth: Depth) -> NDArray[np.float64]:
        """Return the fraction of tokens at each depth, (levels,)."""
        counts = np.bincount(depth.ravel().astype(np.int64), minlength=self.highest + 1)[self.lowest :]
        return counts / depth.size


def scale_of(depth: Depth, num_steps: int) -> Scale:
    """Return the scale from 0, or from 1 if every token runs a step, to `num_steps`."""
    return Scale(lowest=min(1, int(depth.min())), highest=num_steps)


def overlay(pixels: Pixels, depth: Depth, scale: Scale) -> NDArray[np.float64]:
    """Draw depth (N,) over pixels uint8 (h, w, channels); returns RGB in [0, 1] (h, w, 3).

    Hue shows depth; brightness shows the image, with its contrast stretched.
    """
    height, width = pixels.shape[:2]
    high, wide = grid_of(depth, pixels)
    rows, columns = np.arange(height) * high // height, np.arange(width) * wide // width
    colours = scale.colours(depth.reshape(high, wide))[rows][:, columns]
    grey = 255 * as_rgb(pixels) @ np.array((0.299, 0.587, 0.114))
    low, high = np.percentile(grey, (1, 99))
    light = ((grey - low) / max(high - low, 1.0)).clip(0, 1)[..., None]
    shaded = colours * (1 - _SHADE + _SHADE * light)
    lit: NDArray[np.float64] = shaded + _SHINE * light**2 * (1 - shaded)
    return lit


def sheet(inches: tuple[float, float], heading: str, remark: str) -> Figure:
    """Return an empty white figure with a heading and a remark."""
    figure = Figure(figsize=inches, dpi=_DPI, facecolor="white")
    write(figure, 0.3, inches[1] - 0.35, shorten(heading, 72), size=12.5, weight="bold")
    write(figure, 0.3, inches[1] - 0.6, remark, size=9.5, color=FAINT)
    return figure


def write(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Write text with its lower left corner at (x, y), without formulas: file names may contain dollar signs."""
    width, height = figure.get_size_inches()
    printable = text.encode("utf-8", "replace").decode()  # file names that are not UTF-8 have lone surrogates
    figure.text(x / width, y / height, printable, parse_math=False, **{"color": INK, **style})


def image(
    figure: Figure, box: tuple[float, float, float], content: NDArray[np.float64], grid: Grid = (0, 0)
) -> Axes:
    """Draw an RGB image (h, w, 3) in a square box (left, bottom, side), under a grid of (rows, columns) patches."""
    left, bottom, inches = box
    axes = _axes(figure, left, bottom, inches, inches)
    axes.imshow(content, extent=(0, 1, 0, 1), aspect="auto")  # enlarged images stay sharp by default
    rows, columns = (np.arange(1, count) / max(count, 1) for count in grid)
    axes.hlines(rows, 0, 1, colors="white", linewidth=0.5, alpha=0.45)
    axes.vlines(columns, 0, 1, colors="white", linewidth=0.5, alpha=0.45)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    _frameless(axes)
    return axes


def histogram(figure: Figure, box: tuple[float, float, float, float], depth: Depth, scale: Scale) -> None:
    """Draw a colour bar with the share of tokens at each depth; box is left, bottom, width, height."""
    left, bottom, width, height = box
    levels, shares = scale.depths, scale.shares(depth)
    limits = (scale.lowest - 0.5, scale.highest + 0.5)
    bar = _axes(figure, left, bottom, 0.2, height)
    bar.imshow(
        scale.colours(levels)[::-1, None], extent=(0, 1, *limits), aspect="auto", interpolation="nearest"
    )
    bar.set(xticks=[], yticks=levels[:: -(-len(levels) // _TICKS)])
    bar.set_ylabel("depth (steps that a token ran)", color=INK, fontsize=9)
    bar.tick_params(length=0, labelsize=9, labelcolor=INK)
    axes = _axes(figure, left + 0.27, bottom, width - 0.27, height)
    axes.barh(levels, shares, height=0.8, color=scale.colours(levels))
    for level, share in zip(levels, shares, strict=True):
        text, color = (f"{share:.1%}".replace("%", " %"), INK) if share else ("0", FAINT)
        axes.text(share + 0.02 * shares.max(), level, text, va="center", fontsize=8.5, color=color)
    right = axes.get_yaxis_transform()  # x in axes coordinates, y in data coordinates
    axes.text(1, depth.mean(), "◂ mean", transform=right, fontsize=8.5, ha="right", va="center", color=INK)
    axes.set(xlim=(0, shares.max() * 1.6), ylim=limits, xticks=[], yticks=[])
    axes.set_title("share of tokens", color=INK, fontsize=9, loc="left")
    _frameless(bar, axes)


def mean_map(figure: Figure, box: tuple[float, float, float], depth: Depth, scale: Scale, grid: Grid) -> None:
    """Draw the mean of depth (n, N) by position in a square box (left, bottom, side)."""
    axes = image(figure, box, scale.colours(depth.mean(axis=0).reshape(grid)), grid)
    axes.set_title(f"mean depth by position, {len(depth)} images", fontsize=9, color=INK, loc="left")


def grid_of(depth: Depth, pixels: Pixels) -> Grid:
    """Return rows and columns of depth (N,): of the grids of N patches, the one nearest to the picture's shape."""
    tokens, (height, width) = len(depth), pixels.shape[:2]
    grids = [(rows, tokens // rows) for rows in range(1, tokens + 1) if tokens % rows == 0]
    return min(grids, key=lambda grid: abs(math.log(grid[0] / grid[1] * width / height)))


def as_rgb(pixels: Pixels) -> NDArray[np.float64]:
    """Return pixels uint8 (h, w, channels) as RGB in [0, 1]: gray three times, without further channels."""
    rgb = np.repeat(pixels[..., :1], 3, axis=-1) if pixels.shape[-1] < 3 else pixels[..., :3]
    shown: NDArray[np.float64] = rgb / 255
    return shown


def shorten(text: str, limit: int) -> str:
    """Shorten a text in the middle."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 + 1 :]}"


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _frameless(*panels: Axes) -> None:
    for panel in panels:
        for spine in panel.spines.values():
            spine.set_visible(False)
