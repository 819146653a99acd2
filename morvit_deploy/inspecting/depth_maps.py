"""Pictures of token depth, like the paper's Figures 4 and 5: heat maps over images, and histograms. No torch.

Warm colours are deep, cool colours shallow. The colour bar is the axis of the histogram.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.files import OWN_PNG, check_files, is_own_png, write_bytes
from morvit_deploy.inspecting.depth_panels import (
    Depth,
    Scale,
    as_rgb,
    grid_of,
    histogram,
    image,
    mean_map,
    overlay,
    scale_of,
    sheet,
    shorten,
    write,
)

OVERVIEW_IMAGES = 8  # two rows of four
_CELL, _PAIR = 1.75, 3.75  # inches: a column of the overview, and an image above its map
_STEM = 60  # characters of a file name that are kept, to stay below the limits of file systems


def draw_all(
    folder: Path,
    names: Sequence[Path],
    pixels: Pixels,
    depth: Depth,
    num_steps: int,
    titles: Sequence[str] | None = None,
) -> list[Path]:
    """Write `<stem>-depth.png` in `folder` for each image; returns the paths in order.

    names are the image files, pixels are uint8 (n, h, w, 3), depth (n, N) is in steps; titles are added to the
    pictures, such as the predicted class. Files are written atomically. Raises OutputError.
    """
    scale = scale_of(depth, num_steps)
    paths = [folder / name for name in _unique_names(names)]
    check_files([path for path in paths if path.exists()], force=True, replaces=is_own_png)
    for i, path in enumerate(paths):
        figure = _single(names[i].name, pixels[i], depth[i], scale, titles[i] if titles else "")
        write_bytes(path, _png(figure), replaces=is_own_png)
    return paths


def depth_png(name: str, pixels: Pixels, depth: Depth, num_steps: int, title: str = "") -> bytes:
    """One image beside its heat map and histogram: pixels uint8 (h, w, 3), depth (N,) in steps."""
    return _png(_single(name, pixels, depth, scale_of(depth, num_steps), title))


def draw_overview(
    path: Path,
    pixels: Pixels,
    depth: Depth,
    num_steps: int,
    titles: Sequence[str] | None = None,
    heading: str = "Token depth",
) -> Path:
    """Write `overview_png` to a file."""
    content = overview_png(pixels, depth, num_steps, titles, heading)
    write_bytes(path, content, replaces=is_own_png)
    return path


def overview_png(
    pixels: Pixels,
    depth: Depth,
    num_steps: int,
    titles: Sequence[str] | None = None,
    heading: str = "Token depth",
) -> bytes:
    """One picture: up to eight images with their maps, the overall histogram, and the mean depth by position.

    pixels uint8 (n, h, w, 3) belong to the first n rows of depth (m, N), m ≥ n; histogram and means are over all m
    images. Sharp structure in the mean map, or identical maps, indicate routing that ignores the image.
    """
    scale, shown = scale_of(depth, num_steps), min(len(pixels), OVERVIEW_IMAGES)
    rows = -(-shown // 4)
    right, height = 0.95 + min(shown, 4) * _CELL, 1.0 + rows * _PAIR
    bottom = height - 4.45  # of the first row of pairs
    figure = sheet((right + (3.9 if rows > 1 else 7.6), height), heading, _summary(depth, num_steps))
    for i in range(shown):
        left, low = 0.3 + i % 4 * _CELL, bottom - i // 4 * _PAIR
        write(figure, left, low + 3.41, shorten(titles[i], 26) if titles else "", size=8)
        image(figure, (left, low + 1.7, 1.65), as_rgb(pixels[i]))
        image(figure, (left, low, 1.65), overlay(pixels[i], depth[i], scale), grid_of(depth[i], pixels[i]))
    histogram(figure, (right, bottom, 3.6, 3.35), depth, scale)
    corner = (right, bottom - _PAIR) if rows > 1 else (right + 3.9, bottom)
    mean_map(figure, (*corner, 3.35), depth, scale, grid_of(depth[0], pixels[0]))
    return _png(figure)


def _single(name: str, pixels: Pixels, depth: Depth, scale: Scale, title: str) -> Figure:
    """Draw the image, the map over it, the colour bar and the histogram."""
    remark = _summary(depth, scale.highest) + (f"  ·  {title}" if title else "")
    figure = sheet((11.2, 4.35), name, remark)
    image(figure, (0.3, 0.3, 3.3), as_rgb(pixels))
    image(figure, (3.75, 0.3, 3.3), overlay(pixels, depth, scale), grid_of(depth, pixels))
    histogram(figure, (7.75, 0.3, 3.3, 3.3), depth, scale)
    return figure


def _summary(depth: Depth, num_steps: int) -> str:
    return f"mean depth {depth.mean():.2f} of {num_steps} steps"


def _unique_names(names: Sequence[Path]) -> list[str]:
    """Return `<stem>-depth.png` for each file; equal stems, ignoring case, are numbered."""
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


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # file names may use any script
        canvas: Any = FigureCanvasAgg(figure)  # print_png has no types
        canvas.print_png(content, metadata=OWN_PNG)
    return content.getvalue()
