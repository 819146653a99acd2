"""Pictures of merged tokens: the patches of each token in their mean color, with lines between tokens. No torch."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.files import OWN_PNG, is_own_png, write_bytes
from morvit_deploy.inspecting.depth_panels import Depth, as_rgb, grid_of

LEAST_SIDE = 480  # pixels: smaller images are enlarged by a whole number, so that lines are thin
GAP = 12  # between the image and its tokens
LINE = np.array([255, 255, 255], dtype=np.uint8)


def draw_groups(depth_maps: Sequence[Path], pixels: Pixels, groups: Depth) -> list[Path]:
    """Write `<stem>-tokens.png` beside each depth map; returns the paths in order.

    pixels are uint8 (n, h, w, channels), groups (n, N) the number of the token that each patch is part of.
    """
    paths = [path.with_name(f"{path.stem.removesuffix('-depth')}-tokens.png") for path in depth_maps]
    for path, shown, numbers in zip(paths, pixels, groups, strict=True):
        write_bytes(path, groups_png(shown, numbers), replaces=is_own_png)
    return paths


def groups_png(pixels: Pixels, groups: Depth) -> bytes:
    """One image beside its tokens: pixels uint8 (h, w, channels), groups (N,)."""
    pixels = (as_rgb(pixels) * 255).round().astype(np.uint8)
    factor = -(-LEAST_SIDE // pixels.shape[0])
    shown = [
        np.kron(one, np.ones((factor, factor, 1), np.uint8)) for one in (pixels, averaged(pixels, groups))
    ]
    gap = np.full((shown[0].shape[0], GAP, 3), 255, dtype=np.uint8)
    picture = np.concatenate([shown[0], gap, outlined(shown[1], groups)], axis=1)
    marks, content = PngInfo(), io.BytesIO()
    for key, value in OWN_PNG.items():
        marks.add_text(key, value)
    Image.fromarray(picture).save(content, "PNG", pnginfo=marks)
    return content.getvalue()


def averaged(pixels: Pixels, groups: Depth) -> Pixels:
    """Return pixels (h, w, 3) with the mean color of each token in all of its patches."""
    owner = _owners(groups, pixels).reshape(-1)
    colors = pixels.reshape(-1, 3).astype(np.float64)
    counts = np.maximum(np.bincount(owner), 1)
    means = np.stack([np.bincount(owner, colors[:, channel]) / counts for channel in range(3)], axis=1)
    painted: Pixels = means[owner].round().astype(np.uint8).reshape(pixels.shape)
    return painted


def outlined(pixels: Pixels, groups: Depth) -> Pixels:
    """Return pixels (h, w, 3) with lines between patches of different tokens."""
    owner = _owners(groups, pixels)
    drawn: Pixels = pixels.copy()
    drawn[1:][owner[1:] != owner[:-1]] = LINE
    drawn[:, 1:][owner[:, 1:] != owner[:, :-1]] = LINE
    return drawn


def _owners(groups: Depth, pixels: Pixels) -> NDArray[np.int64]:
    """Return the token of each pixel (h, w)."""
    (rows, columns), (height, width) = grid_of(groups, pixels), pixels.shape[:2]
    down, across = np.arange(height) * rows // height, np.arange(width) * columns // width
    owners: NDArray[np.int64] = groups.reshape(rows, columns)[down[:, None], across].astype(np.int64)
    return owners
