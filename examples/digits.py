"""Cluttered digits: handwritten digits at random scale and place on a textured 64×64 RGB canvas.

The digits are scikit-learn's bundled ones (8×8, 1797 of them), so nothing is downloaded. Train and test
pictures come from disjoint source digits. Everything is drawn for a whole batch at once from one seeded generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Generator, Tensor
from torch.nn import functional as F

CANVAS = 64
GLYPH = 32  # source digits are upsampled once, so that drawing is one bilinear lookup
STROKES = 4  # distractors on each picture
SPLIT_SEED = 0
MIN_CONTRAST = 0.35  # in luminance, between a digit and the mean of its background
LUMA = torch.tensor([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Source:
    """Source digits: ink (n, 1, GLYPH, GLYPH) in [0, 1] and labels (n,)."""

    ink: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Batch:
    """Pictures (batch, 3, 64, 64) in [0, 1], labels (batch,) and the digit's ink (batch, 64, 64) in [0, 1]."""

    images: Tensor
    labels: Tensor
    ink: Tensor


def load_sources() -> tuple[Source, Source]:
    """Train (three quarters) and test source digits, disjoint and stratified by class."""
    from sklearn.datasets import load_digits  # the `train` extra; drawing needs it, deployment does not
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(
        digits.images, digits.target, test_size=0.25, stratify=digits.target, random_state=SPLIT_SEED
    )
    train_images, test_images, train_labels, test_labels = parts
    return _source(train_images, train_labels), _source(test_images, test_labels)


def _source(images: NDArray[Any], labels: NDArray[Any]) -> Source:
    """Upsample 8×8 counts (n, 8, 8) of 0 … 16 to smooth ink with soft edges."""
    counts = torch.tensor(images, dtype=torch.float32)[:, None] / 16
    padded = F.pad(counts, (1, 1, 1, 1))  # strokes touch the border; padding lets their edge fade
    smooth = F.interpolate(padded, size=(GLYPH, GLYPH), mode="bicubic", align_corners=False)
    return Source(torch.sigmoid(12 * (smooth - 0.5)), torch.tensor(labels, dtype=torch.long))


def draw(source: Source, picks: Tensor, generator: Generator, elastic: float = 0.0) -> Batch:
    """One picture for each source digit in picks (batch,); `elastic` bends digits by so many pixels (training)."""
    rand = uniform(len(picks), generator)
    place = _poses(rand, size=(34.0, 58.0), turn=0.26, shear=0.15)
    ink = _stamp(source.ink[picks], place, _ripple(len(picks), elastic, generator) if elastic else None)
    images, base = _background(rand, generator)
    for _ in range(STROKES):
        stroke = _stamp(_curves(rand), _poses(rand, size=(11.0, 23.0), turn=math.pi, shear=0.0), None)
        images = _paint(images, stroke, ink_colour(rand, base))
    images = _paint(images, ink, ink_colour(rand, base, lighter=True))
    return Batch(images.clamp(0, 1), source.labels[picks], ink[:, 0])


def random_picks(source: Source, count: int, generator: Generator) -> Tensor:
    """`count` source digits at random, (count,)."""
    return torch.randint(len(source.labels), (count,), generator=generator)


Uniform = Callable[..., Tensor]


def uniform(batch: int, generator: Generator) -> Uniform:
    """rand(low, high, *shape) -> (batch, *shape), uniform."""

    def rand(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator)

    return rand


def _poses(rand: Uniform, size: tuple[float, float], turn: float, shear: float) -> Tensor:
    """Random affine maps (batch, 2, 3) from canvas to glyph coordinates, the glyph wholly on the canvas."""
    pixels, angle, slant = rand(*size), rand(-turn, turn), rand(-shear, shear)
    zoom = CANVAS / pixels
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    linear = torch.stack([cos, sin + slant * cos, -sin, cos - slant * sin], dim=-1).view(-1, 2, 2)
    room = (1 - pixels / CANVAS).clamp(min=0)[:, None]
    centre = rand(-1, 1, 2) * room
    return torch.cat([linear, -linear @ centre[..., None]], dim=-1)


def _ripple(batch: int, strength: float, generator: Generator) -> Tensor:
    """Smooth random displacement (batch, 64, 64, 2) of the canvas, in pixels of about `strength`."""
    coarse = torch.randn(batch, 2, 7, 7, generator=generator) * (2 * strength / CANVAS)
    fine = F.interpolate(coarse, size=(CANVAS, CANVAS), mode="bilinear", align_corners=True)
    return fine.permute(0, 2, 3, 1)


def _stamp(glyphs: Tensor, poses: Tensor, ripple: Tensor | None) -> Tensor:
    """Glyphs (batch, 1, GLYPH, GLYPH) seen through poses: ink (batch, 1, 64, 64)."""
    grid = F.affine_grid(poses, [len(glyphs), 1, CANVAS, CANVAS], align_corners=False)
    if ripple is not None:
        grid = grid + ripple * poses[:, None, None, 0, :1].abs().clamp(min=1)
    return F.grid_sample(glyphs, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _curves(rand: Uniform) -> Tensor:
    """Random arcs (batch, 1, GLYPH, GLYPH): a piece of a parabola as thick as a digit's stroke."""
    axis = torch.linspace(-1, 1, GLYPH)
    bend, width, length = (x[:, None, None] for x in (rand(-1.2, 1.2), rand(0.1, 0.2), rand(0.5, 0.9)))
    off = (axis[:, None] - bend * (axis[None, :] ** 2 - 0.2)).abs()  # (batch, GLYPH, GLYPH)
    beyond = (axis[None, None, :].abs() - length).clamp(min=0)
    return torch.sigmoid(20 * (width - off - 2 * beyond))[:, None]


def _background(rand: Uniform, generator: Generator) -> tuple[Tensor, Tensor]:
    """Texture (batch, 3, 64, 64): a base colour (batch, 3) with three octaves of smooth noise."""
    base = rand(0.05, 0.6, 3)
    images = base[:, :, None, None].expand(-1, -1, CANVAS, CANVAS)
    for cells, channels, strength in ((4, 3, 0.12), (10, 1, 0.10), (22, 1, 0.08)):
        noise = rand(-strength, strength, channels, cells, cells)
        images = images + F.interpolate(noise, size=(CANVAS, CANVAS), mode="bilinear", align_corners=True)
    return images, base


def ink_colour(rand: Uniform, base: Tensor, lighter: bool = False) -> Tensor:
    """Random colours (batch, 3) whose luminance is at least MIN_CONTRAST away from that of base (batch, 3).

    The target is uniform below and above the base, wherever there is room; `lighter` leaves out what is below.
    """
    ground = base @ LUMA
    below, above = (ground - MIN_CONTRAST).clamp(min=0), (1 - MIN_CONTRAST - ground).clamp(min=0)
    below = below * (not lighter)
    at = rand(0, 1) * (below + above)
    target = torch.where(at < below, at, at + ground + MIN_CONTRAST - below)
    colour = rand(0, 1, 3)
    return (colour - (colour @ LUMA)[:, None]) * 0.5 + target[:, None]


def _paint(images: Tensor, ink: Tensor, colour: Tensor) -> Tensor:
    """images (batch, 3, 64, 64) with colour (batch, 3) where ink (batch, 1, 64, 64)."""
    return torch.lerp(images, colour[:, :, None, None].expand_as(images), ink.expand_as(images))
