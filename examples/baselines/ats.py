"""Speed model of Adaptive Token Sampling (Fayyaz et al., ECCV 2022, arXiv:2111.15667) in DeiT-S.

Each of the layers 4 to 12 scores its tokens by the attention of CLS times the norm of the values, samples by
inverting the cumulated scores, and computes attention rows and MLP for the samples alone. The layers are those of the
authors' configuration (`ATS_BLOCKS` in github.com/adaptivetokensampling/ATS).

Simplified: a graph has fixed shapes, so each layer keeps a fixed number of samples instead of dropping duplicates.
The paper publishes the mean cost and not the mean count of each layer; the counts here fall by one factor a layer,
which was chosen to meet that cost. Weights are random: this model measures time, and its classes mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from _layers import MEAN, STD, Block, Published, picked

IMAGE_SIZE = 224
PUBLISHED = Published(
    22.05e6, 2.9e9, IMAGE_SIZE, "DeiT-S+ATS, as quoted; the paper was not at hand to check it"
)
DIM, HEADS, LAYERS, CLASSES = 384, 6, 12, 1000
FIRST = 3  # layers before the first that samples
FACTOR = 0.852  # tokens that a sampling layer keeps


class SamplingBlock(Block):
    """A block that keeps `samples` of its tokens, and CLS."""

    def __init__(self, dim: int, heads: int, samples: int) -> None:
        super().__init__(dim, heads)
        self.register_buffer("levels", torch.linspace(0, 1, samples), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x (batch, tokens, dim) to (batch, 1 + samples, dim)."""
        weights, v = self.attn.weights(self.norm1(x))
        norms = v.transpose(1, 2).flatten(2).norm(dim=-1)  # (batch, tokens)
        scores = (weights[:, :, 0].sum(dim=1) * norms)[:, 1:]
        kept = nn.functional.pad(self._sampled(scores) + 1, (1, 0))  # CLS is token 0
        x = picked(x, kept, 1) + self.attn.mixed(picked(weights, kept, 2), v)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def _sampled(self, scores: Tensor) -> Tensor:
        """Index (batch, samples) of the tokens at equal steps of the cumulated scores."""
        ordered, order = scores.sort(dim=1)
        cumulated = ordered.cumsum(dim=1)
        reached = cumulated / cumulated[:, -1:]
        levels: Tensor = self.levels  # type: ignore[assignment]  # a buffer
        nearest = (levels[None, :, None] - reached[:, None, :]).abs().argmin(dim=-1)
        return order.gather(1, nearest)


class Ats(nn.Module):
    """Normalised images (batch, 3, 224, 224) to logits."""

    def __init__(self) -> None:
        super().__init__()
        patches = (IMAGE_SIZE // 16) ** 2
        self.patches = nn.Conv2d(3, DIM, 16, stride=16)
        self.cls = nn.Parameter(torch.randn(1, 1, DIM) * 0.02)
        self.positions = nn.Parameter(torch.randn(1, 1 + patches, DIM) * 0.02)
        counts = [round(patches * FACTOR**layer) for layer in range(1, 1 + LAYERS - FIRST)]
        plain = [Block(DIM, HEADS) for _ in range(FIRST)]
        self.blocks = nn.Sequential(*plain, *(SamplingBlock(DIM, HEADS, count) for count in counts))
        self.norm, self.head = nn.LayerNorm(DIM, eps=1e-6), nn.Linear(DIM, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, 1000) from CLS."""
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], dim=1) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def build() -> nn.Module:
    """The model that `morvit-deploy compare --baselines ats` measures."""
    return Ats()


__all__ = ["IMAGE_SIZE", "MEAN", "PUBLISHED", "STD", "build"]
