"""Speed model of the Token Clustering Transformer, TCFormer (Zeng et al., CVPR 2022, arXiv:2204.08680).

Four stages of 3, 4, 6 and 3 blocks. Between them a strided convolution widens the tokens, and clustering by density
peaks merges each four to one on average: 3136, 784, 196 and 49 tokens. Tokens go to a grid and back for convolutions,
as a token may stand for any cells of it. Sizes are those of `tcformer` in github.com/zengwang430521/TCFormer.

Simplified: the noise that breaks ties between densities is left out, and cells are gathered and added by rows instead
of by a sparse product, which ONNX does not have. Weights are random: this model measures time, and its classes mean
nothing.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from _layers import MEAN, STD, Published, picked

IMAGE_SIZE = 224
CLASSES, NEIGHBORS = 1000, 5
DIMS, HEADS, WIDER, DEPTHS = (64, 128, 320, 512), (1, 2, 5, 8), (8, 8, 4, 4), (3, 4, 6, 3)
REDUCTIONS = (8, 4, 2, 1)  # of the grid that keys and values are computed on
# the authors count an operation for each value that moves between a token and a cell; most are inside the MLPs
MOVED = sum(2 * (IMAGE_SIZE // 4) ** 2 * DIMS[s] * WIDER[s] * DEPTHS[s] for s in range(1, 4))
PUBLISHED = Published(
    25.6e6,
    5.9e9,
    IMAGE_SIZE,
    "TCFormer: the authors' README (parameters); FLOPs as quoted, not checked against the paper",
    counted_besides=MOVED,
)


@dataclass(frozen=True)
class Tokens:
    """Tokens x (batch, n, dim), the token of each of the first stage's cells, and the side of the present grid."""

    x: Tensor
    owner: Tensor  # (batch, 3136), whole numbers
    side: int
    score: Tensor | None = None  # (batch, n, 1): how much a token counts as a key

    def to_grid(self, x: Tensor) -> Tensor:
        """x (batch, n, channels) to (batch, channels, side, side): the mean over a cell's part of the first grid."""
        first = IMAGE_SIZE // 4
        cells = rows(x, self.owner).transpose(1, 2).unflatten(2, (first, first))
        return nn.functional.avg_pool2d(cells, first // self.side) if self.side < first else cells

    def from_grid(self, grid: Tensor) -> Tensor:
        """A grid (batch, channels, side', side') to (batch, n, channels): the mean over a token's cells."""
        first = IMAGE_SIZE // 4
        cells = nn.functional.interpolate(grid, size=(first, first), mode="nearest").flatten(2)
        return merged(cells.transpose(1, 2), self.owner, torch.ones_like(cells[:, :1]).mT, self.x.shape[1])


def merged(x: Tensor, owner: Tensor, weight: Tensor, count: int) -> Tensor:
    """Weighted means of the rows of x (batch, n, channels) that have the same owner: (batch, count, channels)."""
    order = owner.argsort(dim=1)
    sizes = (owner[:, None] == torch.arange(count)[:, None]).sum(dim=2)
    bounds = nn.functional.pad(sizes.cumsum(dim=1), (1, 0))  # where each owner's rows begin, in this order
    return _added(x * weight, order, bounds) / (_added(weight, order, bounds) + 1e-6)


def _added(x: Tensor, order: Tensor, bounds: Tensor) -> Tensor:
    """Sums of the rows of x (batch, n, channels) between bounds, as differences of running sums."""
    running = nn.functional.pad(rows(x, order).cumsum(dim=1), (0, 0, 1, 0))
    at = rows(running, bounds)
    return at[:, 1:] - at[:, :-1]


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (batch, n, channels) by index (batch, m), whole rows at a time: (batch, m, channels)."""
    numbers = (index + x.shape[1] * torch.arange(index.shape[0])[:, None]).flatten()
    taken: Tensor = x.flatten(0, 1)[numbers].unflatten(0, (x.shape[0], index.shape[1]))
    return taken


class TokenConv(nn.Module):
    """A 3 × 3 convolution on the grid, added to a linear map of the tokens."""

    def __init__(self, dim: int, out: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, out, 3, stride=stride, padding=1, groups=groups)
        self.skip = nn.Conv1d(dim, out, 1, bias=False, groups=groups)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:
        """x (batch, n, dim) to (batch, n, out)."""
        near = self.conv(tokens.to_grid(x))
        own: Tensor = self.skip(x.transpose(1, 2)).transpose(1, 2)
        return own + tokens.from_grid(near)


class GridConv(nn.Conv2d):
    """The depthwise convolution of the first stage, whose tokens are the cells."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, tokens: Tokens) -> Tensor:  # type: ignore[override]  # tokens, not a map
        """x (batch, n, dim) to the same shape."""
        grid = x.transpose(1, 2).unflatten(2, (tokens.side, tokens.side))
        return super().forward(grid).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention to keys of a reduced grid, and an MLP with a depthwise convolution inside."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        dim, hidden, reduction = DIMS[stage], DIMS[stage] * WIDER[stage], REDUCTIONS[stage]
        self.heads, self.reduction = HEADS[stage], reduction
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.q, self.kv, self.proj = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim), nn.Linear(dim, dim)
        if reduction > 1:
            self.reduce, self.norm = nn.Conv2d(dim, dim, reduction, stride=reduction), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.conv: nn.Module = GridConv(hidden) if stage == 0 else TokenConv(hidden, hidden, groups=hidden)

    def forward(self, tokens: Tokens, keys: Tokens) -> Tokens:
        """New states of `tokens`, which attend to `keys`: themselves, or in a stage's first block those before."""
        normed = self.norm1(tokens.x)
        source = replace(keys, x=normed if keys is tokens else self.norm1(keys.x), side=tokens.side)
        x = tokens.x + self._attention(normed, source)
        inside = self.conv(self.fc1(self.norm2(x)), tokens)
        return replace(tokens, x=x + self.fc2(nn.functional.gelu(inside)))

    def _attention(self, queries: Tensor, keys: Tokens) -> Tensor:
        x, score = keys.x, keys.score
        if self.reduction > 1:
            x = self.norm(self.reduce(keys.to_grid(x)).flatten(2).transpose(1, 2))
            pooled = None if score is None else nn.functional.avg_pool2d(keys.to_grid(score), self.reduction)
            score = None if pooled is None else pooled.flatten(2).transpose(1, 2)
        q = self.q(queries).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.kv(x).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
        weights = weights if score is None else weights + score.transpose(1, 2)[:, None]
        mixed: Tensor = self.proj((weights.softmax(dim=-1) @ v).transpose(1, 2).flatten(2))
        return mixed


class Clustering(nn.Module):
    """Widen the tokens, and merge them to a quarter around their density peaks."""

    def __init__(self, stage: int) -> None:
        super().__init__()
        self.conv = TokenConv(DIMS[stage - 1], DIMS[stage], stride=2)
        self.norm, self.score = nn.LayerNorm(DIMS[stage]), nn.Linear(DIMS[stage], 1)

    def forward(self, tokens: Tokens) -> tuple[Tokens, Tokens]:
        """The merged tokens, and the wide ones before, with their scores."""
        x = self.norm(self.conv(tokens.x, tokens))
        score, count = self.score(x), x.shape[1] // 4
        cluster = clusters(x, count)
        merged_x = merged(x, cluster, score.exp(), count)
        owner = cluster.gather(1, tokens.owner)
        return Tokens(merged_x, owner, tokens.side // 2), replace(tokens, x=x, score=score)


def clusters(x: Tensor, count: int) -> Tensor:
    """The cluster (batch, n) of each token: centers are dense and far from any denser token."""
    squares = (x * x).sum(dim=-1, keepdim=True)
    apart = (squares + squares.transpose(1, 2) - 2 * (x @ x.transpose(1, 2))).clamp(min=0)
    distance = (apart / x.shape[-1]).sqrt()  # (batch, n, n)
    near = distance.topk(NEIGHBORS, dim=-1, largest=False).values
    density = (-(near**2).mean(dim=-1)).exp()
    denser = density[:, None, :] > density[:, :, None]
    to_denser = torch.where(denser, distance, distance.amax(dim=(1, 2), keepdim=True)).amin(dim=-1)
    centers = (to_denser * density).topk(count, dim=-1).indices
    nearest = picked(distance, centers, 1).argmin(dim=1)
    own = torch.arange(count).expand(x.shape[0], -1)  # a center stays in its own cluster
    return nearest.scatter(1, centers, own)


class Tct(nn.Module):
    """Normalised images (batch, 3, 224, 224) to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.patch_norm = nn.Conv2d(3, DIMS[0], 7, stride=4, padding=3), nn.LayerNorm(DIMS[0])
        self.stages = nn.ModuleList(
            nn.ModuleList(Block(s) for _ in range(DEPTHS[s])) for s in range(len(DIMS))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim, eps=1e-6) for dim in DIMS)
        self.clusterings = nn.ModuleList(Clustering(stage) for stage in range(1, len(DIMS)))
        self.head = nn.Linear(DIMS[-1], CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, 1000) from the mean of the last tokens."""
        x = self.patch_norm(self.patches(images).flatten(2).transpose(1, 2))
        tokens = keys = Tokens(x, torch.arange(x.shape[1]).expand(x.shape[0], -1), IMAGE_SIZE // 4)
        for stage, blocks in enumerate(self.stages):
            if stage > 0:
                tokens, keys = self.clusterings[stage - 1](tokens)
            assert isinstance(blocks, nn.ModuleList)
            for number, block in enumerate(blocks):
                tokens = block(tokens, keys if number == 0 else tokens)
            tokens = replace(tokens, x=self.norms[stage](tokens.x))
        logits: Tensor = self.head(tokens.x.mean(dim=1))
        return logits


def build() -> nn.Module:
    """The model that `morvit-deploy compare --baselines tct` measures."""
    return Tct()


__all__ = ["IMAGE_SIZE", "MEAN", "PUBLISHED", "STD", "build"]
