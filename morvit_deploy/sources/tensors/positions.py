"""Position embeddings: splitting off the patch grid, and resampling it for another image size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.model.config import MAX_PATCHES


@dataclass(frozen=True)
class Positions:
    """Position embeddings: `prefix` (P, dim) of CLS and other tokens before the patches, `grid` (side, side, dim)."""

    prefix: Tensor
    grid: Tensor

    @property
    def side(self) -> int:
        """Number of patches along an edge."""
        return self.grid.shape[0]

    def joined(self) -> Tensor:
        """Return the positions of CLS and the patches, row by row, as (1, 1 + side², dim)."""
        return torch.cat([self.prefix[:1], self.grid.flatten(0, 1)])[None]

    def resized(self, side: int) -> Positions:
        """Resample the grid to `side` patches along an edge, bicubic and antialiased like timm."""
        if side == self.side:
            return self
        planes = self.grid.permute(2, 0, 1)[None].float()  # (1, dim, side, side)
        planes = F.interpolate(planes, (side, side), mode="bicubic", antialias=True, align_corners=False)
        return Positions(self.prefix, planes[0].permute(1, 2, 0))


def split_positions(rows: Tensor, prefix: int, name: str = "pos_embed", side: int | None = None) -> Positions:
    """Split rows (1, P + side², dim), or (1, side², dim) if only patches have positions; the others are then zero.

    `prefix` P is the number of tokens before the patches; `side` is needed only where two squares fit. Raises
    CheckpointError if the patches are not a square.
    """
    if rows.ndim != 3 or rows.shape[0] != 1:
        raise CheckpointError(f"{name}: got shape {list(rows.shape)}, expected [1, tokens, dim]")
    count, dim = rows.shape[1:]
    sides = [(math.isqrt(n), n) for n in (count - prefix, count) if n > 0 and math.isqrt(n) ** 2 == n]
    sides = [one for one in sides if side in (None, one[0])]
    if len(sides) != 1:
        found = "no square grid" if not sides else "two possible grids"
        raise CheckpointError(
            f"{name}: got {count} rows with {prefix} token(s) before the patches, {found}; expected "
            f"{prefix} + side² rows"
        )
    side, patches = sides[0]
    grid = rows[0, count - patches :].reshape(side, side, dim)
    front = rows[0, : count - patches] if count > patches else rows.new_zeros(prefix, dim)
    return Positions(front, grid)


def side_of(image_size: int, patch_size: int) -> int:
    """Return the number of patches along an edge.

    Raises ConfigError if the image size is no multiple of the patch size, or has more patches than a model may have.
    """
    if image_size % patch_size:
        raise ConfigError(
            f"--image-size: got {image_size}, expected a multiple of the patch size {patch_size}"
        )
    side = image_size // patch_size
    if side**2 > MAX_PATCHES:
        raise ConfigError(
            f"--image-size: got {image_size}, which is {side:,} × {side:,} patches of {patch_size} pixels, expected "
            f"at most {MAX_PATCHES:,} patches"
        )
    return side
