"""Position embeddings: rows of the tokens before the patches, the grid, and the grid of another image size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class Positions:
    """Position embeddings in parts: `prefix` (P, dim) for CLS and those after it, `grid` (side, side, dim)."""

    prefix: Tensor
    grid: Tensor

    @property
    def side(self) -> int:
        """Patches along one edge."""
        return self.grid.shape[0]

    def joined(self) -> Tensor:
        """(1, 1 + side², dim): CLS first, patches row by row."""
        return torch.cat([self.prefix[:1], self.grid.flatten(0, 1)])[None]

    def resized(self, side: int) -> Positions:
        """The grid for `side` patches along an edge: bicubic and antialiased, as timm resamples it."""
        if side == self.side:
            return self
        planes = self.grid.permute(2, 0, 1)[None].float()  # (1, dim, side, side)
        planes = F.interpolate(planes, (side, side), mode="bicubic", antialias=True, align_corners=False)
        return Positions(self.prefix, planes[0].permute(1, 2, 0))


def split_positions(rows: Tensor, prefix: int, name: str = "pos_embed") -> Positions:
    """rows (1, P + side², dim), or (1, side², dim) where only patches have positions: the others' are zero then.

    `prefix` P counts CLS and what stands beside it. CheckpointError when the patches are no square.
    """
    if rows.ndim != 3 or rows.shape[0] != 1:
        raise CheckpointError(f"{name} is {list(rows.shape)}, expected [1, tokens, dim]")
    count, dim = rows.shape[1:]
    sides = [(math.isqrt(n), n) for n in (count - prefix, count) if n > 0 and math.isqrt(n) ** 2 == n]
    if len(sides) != 1:
        found = "no square grid" if not sides else "two possible grids"
        raise CheckpointError(
            f"{name} has {count} rows for {prefix} token(s) before the patches: {found}; expected {prefix} + side² "
            "rows, of square images"
        )
    side, patches = sides[0]
    grid = rows[0, count - patches :].reshape(side, side, dim)
    front = rows[0, : count - patches] if count > patches else rows.new_zeros(prefix, dim)
    return Positions(front, grid)


def side_of(image_size: int, patch_size: int) -> int:
    """Patches along an edge of an image; ConfigError when they do not fill it."""
    if image_size % patch_size:
        raise ConfigError(
            f"--image-size: got {image_size}, expected a multiple of the patch size {patch_size}"
        )
    return image_size // patch_size
