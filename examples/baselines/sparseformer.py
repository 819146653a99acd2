"""Speed model of SparseFormer-T (Gao et al., ICLR 2024, arXiv:2304.03768).

49 latent tokens sample 36 points each of an early convolution's map, decode them by weights that the token itself
generates, and attend to one another: one block of width 256 four times, which also moves each token's region, then
eight blocks of width 512, of which the first samples. Sizes are those of `sparseformer_t.yaml` in
github.com/showlab/sparseformer.

Simplified: nothing that costs time. The graph has 2.18 GMACs, 2.04 of them products with weights: the published 2.0
GFLOPs are met without products of two activations (generated weights, attention), which the authors' counter seems
not to see. Weights are random, and begin as the authors' do where others would make sampling ill-conditioned: this
model measures time, and its classes mean nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))

from _layers import MEAN, STD, Attention, Mlp, Published

IMAGE_SIZE = 224
TOKENS, POINTS, CHANNELS, CLASSES = 49, 36, 96, 1000
NARROW, WIDE, FOCUSING, BLOCKS = 256, 512, 4, 8
GENERATED = (
    (FOCUSING + 1) * TOKENS * POINTS * CHANNELS * (CHANNELS + POINTS)
)  # MACs of the products in Decoder
ATTENDED = 2 * TOKENS * TOKENS * (FOCUSING * NARROW + BLOCKS * WIDE)  # MACs of attention's products
PUBLISHED = Published(
    32e6,
    2.0e9,
    IMAGE_SIZE,
    "SF-Tiny: table of the authors' repository, imagenet/README.md",
    counted_besides=-GENERATED - ATTENDED,
)


def norm(dim: int) -> nn.LayerNorm:
    """Over the last axis."""
    return nn.LayerNorm(dim, eps=1e-6)


class EarlyConvolution(nn.Module):
    """Images to a map (batch, CHANNELS, 56, 56), normalised over its channels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool = (
            nn.Conv2d(3, CHANNELS, 7, stride=2, padding=3),
            nn.MaxPool2d(3, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """The map that tokens sample."""
        found = self.pool(self.conv(images).relu()).permute(0, 2, 3, 1)
        return F.layer_norm(found, (CHANNELS,)).permute(0, 3, 1, 2)


class Decoder(nn.Module):
    """Sampled points (batch, TOKENS, POINTS, CHANNELS), mixed by weights that each token generates."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        generated = CHANNELS * CHANNELS + POINTS * POINTS
        self.generate = nn.Sequential(norm(dim), nn.Linear(dim, dim // 4), nn.Linear(dim // 4, generated))
        self.shift_channels, self.shift_points = (
            nn.Parameter(torch.zeros(CHANNELS)),
            nn.Parameter(torch.zeros(POINTS, 1)),
        )
        self.out = nn.Linear(POINTS * CHANNELS, dim)

    def forward(self, points: Tensor, tokens: Tensor) -> Tensor:
        """An update (batch, TOKENS, dim) of the tokens."""
        by_channel, by_point = self.generate(tokens).split([CHANNELS * CHANNELS, POINTS * POINTS], dim=-1)
        mixed = F.gelu(points @ by_channel.unflatten(-1, (CHANNELS, CHANNELS)) + self.shift_channels)
        mixed = F.gelu(by_point.unflatten(-1, (POINTS, POINTS)) @ mixed + self.shift_points)
        update: Tensor = self.out(mixed.flatten(2))
        return update


class Unit(nn.Module):
    """Attention among the tokens and an MLP; with `samples`, points of the map between them."""

    def __init__(self, dim: int, *, samples: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.attn, self.mlp = Attention(dim, 64), Mlp(dim, 4 * dim)
        self.samples = samples
        if samples:
            self.move = nn.Sequential(norm(dim), nn.Linear(dim, 4, bias=False))
            self.offsets = nn.Sequential(norm(dim), nn.Linear(dim, 2 * POINTS))
            self.decode = Decoder(dim)
            steps = torch.linspace(-0.4, 0.4, round(POINTS**0.5))
            evenly = torch.stack([*torch.meshgrid(steps, steps, indexing="xy")], dim=-1).flatten()
            with torch.no_grad():
                self.move[1].weight.zero_()  # type: ignore[operator]  # of a Linear
                self.offsets[1].weight.mul_(0.02)  # type: ignore[operator]
                self.offsets[1].bias.copy_(evenly)  # type: ignore[operator]

    def forward(self, tokens: Tensor, regions: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (batch, TOKENS, dim) and regions (batch, TOKENS, 4): corners x, y, x, y from 0 to 1."""
        tokens = tokens + self.attn(self.norm1(tokens))
        if self.samples:
            regions = moved(regions, self.move(tokens))
            points = sampled(found, regions, self.offsets(tokens).unflatten(-1, (POINTS, 2)))
            tokens = tokens + self.decode(points, tokens)
        return tokens + self.mlp(self.norm2(tokens)), regions


def moved(regions: Tensor, by: Tensor) -> Tensor:
    """Regions whose centers move by shares of their size, and whose size changes by a factor."""
    low, high = regions.chunk(2, dim=-1)
    shift, scale = by.chunk(2, dim=-1)
    size = (high - low).abs()
    center, half = (low + high) / 2 + shift * size, size * scale.exp() / 2
    return torch.cat([center - half, center + half], dim=-1)


def sampled(found: Tensor, regions: Tensor, offsets: Tensor) -> Tensor:
    """The map at POINTS places of each region (batch, TOKENS, POINTS, CHANNELS), bilinear."""
    low, high = regions.unsqueeze(2).chunk(2, dim=-1)
    mean = offsets.mean(dim=2, keepdim=True)
    spread = ((offsets - mean) ** 2).mean(dim=2, keepdim=True).sqrt() + 1e-7
    places = (low + high) / 2 + (offsets - mean) / (3 * spread) * (high - low)
    values = F.grid_sample(found, places * 2 - 1, align_corners=False)  # (batch, CHANNELS, TOKENS, POINTS)
    return values.permute(0, 2, 3, 1)


class SparseFormer(nn.Module):
    """Normalised images (batch, 3, 224, 224) to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.early = EarlyConvolution()
        self.tokens, self.regions = nn.Parameter(torch.randn(1, TOKENS, NARROW)), nn.Parameter(grid())
        self.focus, self.widen = (
            Unit(NARROW, samples=True),
            nn.Sequential(nn.Linear(NARROW, WIDE), norm(WIDE)),
        )
        self.blocks = nn.ModuleList(Unit(WIDE, samples=number == 0) for number in range(BLOCKS))
        self.norm, self.head = norm(WIDE), nn.Linear(WIDE, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, 1000) from the mean of the latent tokens."""
        found = self.early(images)
        tokens, regions = (start.expand(images.shape[0], -1, -1) for start in (self.tokens, self.regions))
        for _ in range(FOCUSING):
            tokens, regions = self.focus(tokens, regions, found)
        tokens = self.widen(tokens)
        for block in self.blocks:
            tokens, regions = block(tokens, regions, found)
        logits: Tensor = self.head(self.norm(tokens.mean(dim=1)))
        return logits


def grid() -> Tensor:
    """Regions of half the image's side, evenly spread: (1, TOKENS, 4)."""
    steps = torch.linspace(0, 0.5, 7)
    corners = torch.stack([*torch.meshgrid(steps, steps, indexing="xy")], dim=-1).reshape(1, TOKENS, 2)
    return torch.cat([corners, corners + 0.5], dim=-1)


def build() -> nn.Module:
    """The model that `morvit-deploy compare --baselines sparseformer` measures."""
    return SparseFormer()


__all__ = ["IMAGE_SIZE", "MEAN", "PUBLISHED", "STD", "build"]
