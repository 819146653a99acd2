"""Position embeddings: splitting off the patch grid, and resampling it for another image size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.model.config import MAX_PATCHES


@dataclass(frozen=True)
class Positions:
    """Position embeddings: `prefix` (P, dim) of tokens before the patches, `grid` (rows, columns, dim)."""

    prefix: Tensor
    grid: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.grid.shape[0], self.grid.shape[1]

    def joined(self, front: int = 1) -> Tensor:
        """Return the positions of CLS and the patches, row by row, as (1, 1 + N, dim); of patches with `front` 0."""
        return torch.cat([self.prefix[:front], self.grid.flatten(0, 1)])[None]

    def resized(self, size: tuple[int, int]) -> Positions:
        """Resample the grid to `size` rows and columns of patches, bicubic and antialiased like timm."""
        if size == self.size:
            return self
        planes = self.grid.permute(2, 0, 1)[None].float()  # (1, dim, rows, columns)
        planes = F.interpolate(planes, size, mode="bicubic", antialias=True, align_corners=False)
        return Positions(self.prefix, planes[0].permute(1, 2, 0))


def split_positions(
    rows: Tensor, prefix: int, grid: tuple[int, int], before: int, name: str = "pos_embed"
) -> Positions:
    """Split rows (1, before + N, dim), of `before` tokens and a `grid` of patches.

    `prefix` is the number of tokens before the patches; those without a position of their own have zeros. Raises
    CheckpointError if the rows do not fit.
    """
    if rows.ndim != 3 or rows.shape[0] != 1:
        raise CheckpointError(f"{name}: got shape {list(rows.shape)}, expected [1, tokens, dim]")
    count, dim = rows.shape[1:]
    high, wide = grid
    if count != before + high * wide:
        raise CheckpointError(
            f"{name}: got {count} rows, expected {before} before the patches and {high}×{wide} patches"
        )
    front = torch.cat([rows[0, :before], rows.new_zeros(prefix - before, dim)])
    return Positions(front, rows[0, before:].reshape(high, wide, dim))


def grid_of(size: tuple[int, int], patch: int, stride: int | None = None) -> tuple[int, int]:
    """Return rows and columns of patches in images of `size` (height, width); with `stride` they overlap.

    Raises ConfigError if the image size is no multiple of the patch size, or has more patches than a model may have.
    """
    shown = str(size[0]) if size[0] == size[1] else "x".join(map(str, size))
    if stride is None and any(edge % patch for edge in size):
        raise ConfigError(f"--image-size: got {shown}, expected a multiple of the patch size {patch}")
    if min(size) < patch:
        raise ConfigError(f"--image-size: got {shown}, expected at least the patch size {patch}")
    high, wide = ((edge - patch) // (stride or patch) + 1 for edge in size)
    if high * wide > MAX_PATCHES:
        raise ConfigError(
            f"--image-size: got {shown}, which is {high:,} × {wide:,} patches of {patch} pixels, expected at most "
            f"{MAX_PATCHES:,} patches"
        )
    return high, wide
