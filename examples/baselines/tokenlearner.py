"""Speed model of TokenLearner (Ryoo et al., NeurIPS 2021, arXiv:2106.11297) in the middle of ViT-B/16.

Six layers see every patch; then eight tokens are learned as weighted means of all patches, and six layers see these
eight. The head reads their mean, as in the authors' configuration (`classifier: gap` of
github.com/google-research/scenic, projects/token_learner).

Simplified: version 1.1 of the module, which the authors recommend: an MLP of 64 units and a softmax instead of four
convolutions. The paper fine-tunes and counts at 384 pixels; the model is checked at that size and measured at 224, as
its neighbors are. Weights are random: this model measures time, and its classes mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from _layers import MEAN, STD, Block, Mlp, Published

IMAGE_SIZE = 224
PUBLISHED = Published(
    86e6,
    28.7e9,
    384,
    "TokenLearner B/16: two copies of the paper's table; parameters: those of ViT-B, as quoted",
)
DIM, HEADS, LAYERS, CLASSES = 768, 12, 12, 1000
MIDDLE, TOKENS, BOTTLENECK = 6, 8, 64


class TokenLearner(nn.Module):
    """Tokens (batch, patches, dim) to TOKENS weighted means of them."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.score = nn.LayerNorm(DIM, eps=1e-6), Mlp(DIM, BOTTLENECK, TOKENS)

    def forward(self, x: Tensor) -> Tensor:
        """Means (batch, TOKENS, dim)."""
        weights = self.score(self.norm(x)).transpose(1, 2).softmax(dim=-1)  # (batch, TOKENS, patches)
        means: Tensor = weights @ x
        return means


class TokenLearnerViT(nn.Module):
    """Normalised images (batch, 3, size, size) to logits."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, DIM, 16, stride=16)
        self.positions = nn.Parameter(torch.randn(1, (image_size // 16) ** 2, DIM) * 0.02)
        before, after = ([Block(DIM, HEADS) for _ in range(count)] for count in (MIDDLE, LAYERS - MIDDLE))
        self.blocks = nn.Sequential(*before, TokenLearner(), *after)
        self.norm, self.head = nn.LayerNorm(DIM, eps=1e-6), nn.Linear(DIM, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, 1000) from the mean of the learned tokens."""
        x = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.head(self.norm(self.blocks(x)).mean(dim=1))
        return logits


def build(image_size: int = IMAGE_SIZE) -> nn.Module:
    """The model that `morvit-deploy compare --baselines tokenlearner` measures."""
    return TokenLearnerViT(image_size)


__all__ = ["IMAGE_SIZE", "MEAN", "PUBLISHED", "STD", "build"]
