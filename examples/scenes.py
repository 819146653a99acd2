"""Scenes: one to nine small handwritten digits on a textured 64×64 RGB canvas; the class is the largest digit.

    python examples/scenes.py --out examples/scenes-test
    python examples/scenes.py --source training --count 2000 --seed 11 --out scenes-to-fit

writes scenes as PNG files with labels.csv, whose third column is the number of digits, from test digits or from
training digits.

Every digit may be the largest, so all of them have to be read, and a full picture needs more tokens than a sparse
one. Few pictures are full: n digits have a probability in proportion to 1 / n. The digits are those of `digits.py`:
nothing is downloaded, and train and test pictures share no source digit.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pictures
import torch
from digits import Source, Uniform, ink_colour, load_sources, uniform
from torch import Generator, Tensor
from torch.nn import functional as F

CELLS = 4  # a side; a cell holds one digit or none
CELL = 16  # pixels a side: two by two patches
CANVAS = CELLS * CELL
MOST = 9  # digits in a picture
SIZE = (13.0, 16.0)  # pixels
TURN, SLANT = 0.25, 0.15
COUNT, SEED = 200, 2026  # pictures that are shipped
NOTHING = -100  # the class of a patch without a digit, which torch's losses ignore


@dataclass(frozen=True)
class Batch:
    """Pictures (batch, 3, 64, 64) in [0, 1], and what is in them."""

    images: Tensor
    labels: Tensor  # (batch,) the largest digit; 0 if there is none
    objects: Tensor  # (batch,) number of digits
    ink: Tensor  # (batch, 64, 64) in [0, 1]
    digits: Tensor  # (batch, 16) the digit in each cell, or NOTHING


def draw(source: Source, count: int, generator: Generator, objects: Tensor | None = None) -> Batch:
    """`count` pictures with `objects` (count,) digits, at most MOST each; by default at random, few of them full."""
    if objects is None:
        likely = 1 / torch.arange(1.0, MOST + 1)
        objects = 1 + torch.multinomial(likely, count, replacement=True, generator=generator)
    filled = torch.rand(count, CELLS**2, generator=generator).argsort(dim=1).argsort(dim=1) < objects[:, None]
    picks = torch.randint(len(source.labels), (int(filled.sum()),), generator=generator)
    digits = torch.full(filled.shape, NOTHING)
    digits[filled] = source.labels[picks]
    images, base = _ground(uniform(count, generator))
    rand = uniform(len(picks), generator)
    ink = _cells(filled, _glyphs(source.ink[picks], rand))
    colours = ink_colour(rand, base[filled.nonzero()[:, 0]], lighter=True)
    paint = _cells(filled, colours[:, :, None, None].expand(-1, -1, CELL, CELL))
    images = torch.lerp(images, paint, ink).clamp(0, 1)
    return Batch(images, digits.amax(dim=1).clamp(min=0), objects, ink[:, 0], digits)


def patch_digits(batch: Batch, patches: int, least: float = 0.03) -> Tensor:
    """The digit of which each patch (batch, N), row by row, shows some ink, or NOTHING."""
    side = round(patches**0.5)
    grown = batch.digits.unflatten(1, (CELLS, CELLS)).repeat_interleave(side // CELLS, dim=1)
    of_cell = grown.repeat_interleave(side // CELLS, dim=2).flatten(1)
    inked = F.avg_pool2d(batch.ink[:, None], CANVAS // side).flatten(1) > least
    seen: Tensor = of_cell.masked_fill(~inked, NOTHING)
    return seen


def _ground(rand: Uniform) -> tuple[Tensor, Tensor]:
    """Texture (batch, 3, 64, 64): a base colour (batch, 3) with two octaves of smooth noise."""
    base = rand(0.05, 0.55, 3)
    images = base[:, :, None, None].expand(-1, -1, CANVAS, CANVAS)
    for cells, channels, strength in ((3, 3, 0.08), (12, 1, 0.06)):
        noise = rand(-strength, strength, channels, cells, cells)
        images = images + F.interpolate(noise, size=(CANVAS, CANVAS), mode="bilinear", align_corners=True)
    return images, base


def _glyphs(ink: Tensor, rand: Uniform) -> Tensor:
    """Source digits (n, 1, GLYPH, GLYPH) at random size, place and angle in a cell: (n, 1, CELL, CELL)."""
    pixels, angle, slant = rand(*SIZE), rand(-TURN, TURN), rand(-SLANT, SLANT)
    zoom = CELL / pixels
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    linear = torch.stack([cos, sin + slant * cos, -sin, cos - slant * sin], dim=-1).view(-1, 2, 2)
    centre = rand(-1, 1, 2) * (1 - pixels / CELL)[:, None]
    poses = torch.cat([linear, -linear @ centre[..., None]], dim=-1)  # from cell to glyph coordinates
    grid = F.affine_grid(poses, [len(ink), 1, CELL, CELL], align_corners=False)
    return F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _cells(filled: Tensor, parts: Tensor) -> Tensor:
    """Parts (n, channels, CELL, CELL) in the n cells where filled (batch, 16); zero in the others.

    Returns (batch, channels, 64, 64).
    """
    grid = parts.new_zeros(*filled.shape, parts.shape[1], CELL, CELL)
    grid[filled] = parts
    rows: Tensor = grid.unflatten(1, (CELLS, CELLS))
    rows = rows.permute(0, 3, 1, 4, 2, 5)  # (batch, channels, row, y, column, x)
    return rows.reshape(len(filled), parts.shape[1], CANVAS, CANVAS)


def main() -> None:
    """Draw scenes and write them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", choices=("test", "training"), default="test", help="whose digits")
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--seed", type=int, default=SEED)
    given = parser.parse_args()
    source = load_sources()[given.source == "test"]
    generator = torch.Generator().manual_seed(given.seed)
    objects = usual_objects(given.count)[torch.randperm(given.count, generator=generator)]
    batches = [draw(source, len(part), generator, part) for part in objects.split(pictures.CHUNK)]
    pictures.write(batches, given.out, {"objects": objects})
    print(f"{given.count} pictures in {given.out}")


def usual_objects(count: int) -> Tensor:
    """Numbers of digits (count,), ascending: n digits in proportion to 1 / n, to the nearest picture."""
    likely = (1 / torch.arange(1.0, MOST + 1, dtype=torch.float64)).cumsum(dim=0)
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return 1 + torch.searchsorted(likely / likely[-1], middles)


if __name__ == "__main__":
    main()
