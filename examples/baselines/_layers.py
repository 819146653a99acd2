"""What the speed models share: a transformer block whose attention may keep fewer tokens than it reads."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Published:
    """Figures of a paper that the model is checked against, and where they are."""

    parameters: float
    macs: float  # of one image; papers call them FLOPs
    image_size: int  # pixels
    source: str
    counted_besides: int = (
        0  # operations in `macs` that are no products of a graph, less products that it leaves out
    )


class Attention(nn.Module):
    """Multi-head attention (batch, tokens, dim) with one product for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def weights(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Attention weights (batch, heads, tokens, tokens) and values (batch, heads, tokens, head_dim)."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).view(batch, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scale = (dim // self.heads) ** -0.5
        return (q * scale @ k.transpose(-2, -1)).softmax(dim=-1), v

    def mixed(self, weights: Tensor, v: Tensor) -> Tensor:
        """The rows of `weights` as tokens (batch, rows, dim)."""
        out: Tensor = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """Every token."""
        return self.mixed(*self.weights(x))


class Mlp(nn.Sequential):
    """Two linear layers with GELU between them."""

    def __init__(self, dim: int, hidden: int, out: int | None = None) -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, out or dim))


class Block(nn.Module):
    """A pre-norm block of ViT, with an MLP of four times the width."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim, 4 * dim)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, dim) to the same shape."""
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


def picked(x: Tensor, index: Tensor, dim: int) -> Tensor:
    """Slices of x along `dim`; index (batch, picked), and x has the batch first."""
    shape = [index.shape[0], *[1] * (x.dim() - 1)]
    shape[dim] = index.shape[1]
    sizes = list(x.shape)
    sizes[dim] = index.shape[1]
    return torch.gather(x, dim, index.view(shape).expand(sizes))
