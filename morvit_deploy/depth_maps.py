"""Pictures of token depth, as the paper's Figures 4 and 5: heat map over the image, and histogram. No torch.

Warm is deep, cool is shallow. The colour bar is also the histogram's axis, so a colour is read off where it is counted.
"""

from __future__ import annotations

import io
import math
import os
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from morvit_deploy.errors import OutputError

Ints = NDArray[np.integer[Any]]
Pixels = NDArray[np.uint8]

OVERVIEW_IMAGES = 8  # two rows of four: more are too small to read
_RAMP = LinearSegmentedColormap.from_list(
    "depth", ("#3450b4", "#3f93d6", "#74cbc6", "#f4e285", "#f58f37", "#cf1d2d")
)
_GAMMA = 0.75  # most tokens are shallow: spreads the colours of the first steps apart
_SHADE = 0.62  # of a colour's brightness follows the picture: less hides the picture, more the colour
_INK, _FAINT = "#26282c", "#858b93"
_DPI = 110
_CELL, _PAIR = 1.75, 3.75  # inches: a column of the overview, and an image above its map
_STEM = 60  # characters of a file's name kept in a picture's: well below every file system's limit


@dataclass(frozen=True)
class Scale:
    """The depths shown, from `lowest` to `highest`, and a colour for each."""

    lowest: int
    highest: int

    @property
    def depths(self) -> NDArray[np.int64]:
        """Every depth, shallow to deep."""
        return np.arange(self.lowest, self.highest + 1)

    def colours(self, depth: NDArray[Any]) -> NDArray[np.float64]:
        """RGB in [0, 1] of depths (...), which may be means, as (..., 3)."""
        level = (depth - float(self.lowest)) / max(self.highest - self.lowest, 1)
        return _RAMP(level**_GAMMA)[..., :3]

    def shares(self, depth: Ints) -> NDArray[np.float64]:
        """Share of tokens at each depth, (levels,)."""
        counts = np.bincount(depth.ravel().astype(np.int64), minlength=self.highest + 1)[self.lowest :]
        return counts / depth.size


def scale_of(depth: Ints, num_steps: int) -> Scale:
    """From 0, or 1 where every token runs a step, to `num_steps`: the same for pictures drawn together."""
    return Scale(lowest=min(1, int(depth.min())), highest=num_steps)


def overlay(pixels: Pixels, depth: Ints, scale: Scale) -> NDArray[np.float64]:
    """The heat map over the image: pixels uint8 (h, w, 3), depth (N,) row by row, to RGB in [0, 1] (h, w, 3).

    Hue is depth alone; brightness is the picture's, its contrast stretched so that it shows through every colour.
    """
    height, width = pixels.shape[:2]
    side = _side(depth)
    rows, columns = np.arange(height) * side // height, np.arange(width) * side // width
    colours = scale.colours(depth.reshape(side, side))[rows][:, columns]
    grey = pixels @ np.array((0.299, 0.587, 0.114))
    low, high = np.percentile(grey, (1, 99))
    light = ((grey - low) / max(high - low, 1.0)).clip(0, 1)[..., None]
    shaded = colours * (1 - _SHADE + _SHADE * light)
    return shaded + 0.3 * light**2 * (1 - shaded)  # highlights go towards white


def draw_all(
    folder: Path,
    names: Sequence[Path],
    pixels: Pixels,
    depth: Ints,
    num_steps: int,
    titles: Sequence[str] | None = None,
) -> list[Path]:
    """Write `<stem>-depth.png` in `folder` for each image, and return the paths in order.

    names are the image files, pixels uint8 (n, h, w, 3), depth (n, N) in steps; titles add a phrase to each
    picture, such as the predicted class. Each file is whole or absent. OutputError when it cannot be written.
    """
    scale = scale_of(depth, num_steps)
    paths = [folder / name for name in _unique_names(names)]
    for i, path in enumerate(paths):
        figure = _one(names[i].name, pixels[i], depth[i], scale, titles[i] if titles else "")
        _save(figure, path)
    return paths


def draw_overview(
    path: Path,
    pixels: Pixels,
    depth: Ints,
    num_steps: int,
    titles: Sequence[str] | None = None,
    heading: str = "",
) -> Path:
    """Write one picture of up to eight images with their maps, the pooled histogram, and the mean depth of each place.

    pixels uint8 (n, h, w, 3) belong to the first n rows of depth (m, N), m ≥ n; histogram and means are over all m.
    A mean map with clear structure and alike maps above it tell of routing that ignores the image.
    """
    scale, shown = scale_of(depth, num_steps), min(len(pixels), OVERVIEW_IMAGES)
    columns, rows = min(shown, 4), -(-shown // 4)
    right = 0.3 + columns * _CELL + 0.65  # inches, as all places here
    height = 1.0 + rows * _PAIR
    figure = _sheet(
        (right + (3.9 if rows > 1 else 7.4), height), heading or "Token depth", _summary(depth, num_steps)
    )
    for i in range(shown):
        left, top = 0.3 + i % 4 * _CELL, height - 1.1 - i // 4 * _PAIR
        _text(figure, left, top + 0.06, _shorten(titles[i], 26) if titles else "", size=8)
        _show(_axes(figure, left, top - 1.65, 1.65, 1.65), pixels[i] / 255)
        _show(
            _axes(figure, left, top - 3.35, 1.65, 1.65), overlay(pixels[i], depth[i], scale), _side(depth[i])
        )
    _histogram(figure, (right, height - 4.1, 3.6, 3.0), depth, scale)
    corner = (right, height - 4.45 - _PAIR) if rows > 1 else (right + 3.9, height - 4.45)
    _places(figure, corner, depth, scale)
    return _save(figure, path)


def _one(name: str, pixels: Pixels, depth: Ints, scale: Scale, title: str) -> Figure:
    """The image, the map over it, colour bar and histogram."""
    summary = _summary(depth, scale.highest) + (f"  ·  {title}" if title else "")
    figure = _sheet((11.2, 4.35), name, summary)
    _show(_axes(figure, 0.3, 0.3, 3.3, 3.3), pixels / 255)
    _show(_axes(figure, 3.75, 0.3, 3.3, 3.3), overlay(pixels, depth, scale), _side(depth))
    _histogram(figure, (7.75, 0.55, 3.3, 3.05), depth, scale)
    return figure


def _sheet(inches: tuple[float, float], heading: str, summary: str) -> Figure:
    """An empty white figure with its two lines of text."""
    figure = Figure(figsize=inches, dpi=_DPI, facecolor="white")
    _text(figure, 0.3, inches[1] - 0.35, _shorten(heading, 72), size=12.5, weight="bold")
    _text(figure, 0.3, inches[1] - 0.6, summary, size=9.5, color=_FAINT)
    return figure


def _side(depth: Ints) -> int:
    """Patches in a row of a square image, from depth (N,)."""
    return math.isqrt(len(depth))


def _summary(depth: Ints, num_steps: int) -> str:
    return f"mean depth {depth.mean():.2f} of {num_steps} steps"


def _axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def _text(figure: Figure, x: float, y: float, text: str, **style: Any) -> None:
    """Text at a place in inches; dollar signs of file names are no formulas."""
    w, h = figure.get_size_inches()
    printable = text.encode("utf-8", "replace").decode()  # a name that is not UTF-8 has lone surrogates
    figure.text(x / w, y / h, printable, parse_math=False, **{"color": _INK, **style})


def _show(axes: Axes, image: NDArray[np.float64], side: int = 0) -> None:
    """An image without ticks, with the grid of side × side patches over it; small images stay crisp."""
    axes.imshow(image, extent=(0, 1, 0, 1), aspect="auto")
    inner = np.arange(1, side) / max(side, 1)
    axes.vlines(inner, 0, 1, colors="white", linewidth=0.5, alpha=0.45)
    axes.hlines(inner, 0, 1, colors="white", linewidth=0.5, alpha=0.45)
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
    _frameless(axes)


def _histogram(figure: Figure, box: tuple[float, float, float, float], depth: Ints, scale: Scale) -> None:
    """Colour bar, and beside each of its levels the share of tokens. `box` in inches."""
    left, bottom, width, height = box
    levels, shares = scale.depths, scale.shares(depth)
    limits = (scale.lowest - 0.5, scale.highest + 0.5)
    bar = _axes(figure, left, bottom, 0.2, height)
    bar.imshow(
        scale.colours(levels)[::-1, None], extent=(0, 1, *limits), aspect="auto", interpolation="nearest"
    )
    bar.set(xticks=[], yticks=levels[:: -(-len(levels) // 13)])
    bar.set_ylabel("depth (steps that a token ran)", color=_INK, fontsize=9)
    bar.tick_params(length=0, labelsize=9, labelcolor=_INK)
    axes = _axes(figure, left + 0.27, bottom, width - 0.27, height)
    axes.barh(levels, shares, height=0.8, color=scale.colours(levels))
    for level, share in zip(levels, shares, strict=True):
        text, color = (f"{share:.1%}", _INK) if share else ("0", _FAINT)
        axes.text(share + 0.02 * shares.max(), level, text, va="center", fontsize=8.5, color=color)
    right = axes.get_yaxis_transform()  # x in the axes' width, y in depths
    axes.text(1, depth.mean(), "◂ mean", transform=right, fontsize=8.5, ha="right", va="center", color=_INK)
    axes.set(xlim=(0, shares.max() * 1.5), ylim=limits, xticks=[], yticks=[])
    axes.set_title("share of tokens", color=_INK, fontsize=9, loc="left")
    _frameless(bar, axes)


def _places(figure: Figure, corner: tuple[float, float], depth: Ints, scale: Scale) -> None:
    """Mean depth at each place over all images depth (m, N), drawn from the lower left `corner` in inches."""
    axes = _axes(figure, *corner, 3.0, 3.0)
    side = _side(depth[0])
    _show(axes, scale.colours(depth.mean(axis=0).reshape(side, side)), side)
    axes.set_title(f"mean depth at each place, {len(depth)} images", fontsize=9, color=_INK, loc="left")


def _frameless(*panels: Axes) -> None:
    for panel in panels:
        for spine in panel.spines.values():
            spine.set_visible(False)


def _shorten(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 + 1 :]}"


def _unique_names(names: Sequence[Path]) -> list[str]:
    """`<stem>-depth.png` of each; alike stems are numbered, also where file systems ignore case."""
    taken: set[str] = set()
    out = []
    for name in names:
        stem = candidate = name.stem[:_STEM]
        number = 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{stem}-{number}"
        taken.add(candidate.casefold())
        out.append(f"{candidate}-depth.png")
    return out


def _save(figure: Figure, path: Path) -> Path:
    """Render, then write whole or not at all."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # a file name may use any script
        FigureCanvasAgg(figure).print_png(content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent, prefix=".depth-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content.getvalue())
            Path(partial).replace(path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; choose another place") from None
    return path
