"""The parts of a static graph where channels come first, (1, dim, 1, tokens): the layout of Apple's Neural Engine.

Linear layers are 1 × 1 convolutions, norms and softmax run over the channel axis, attention goes head by head: as
Apple describes in "Deploying Transformers on the Apple Neural Engine" (2022). The weights are those of `blocks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.graph.maths.layouts import mixed
from morvit_deploy.graph.maths.rewrites import KV, Affine
from morvit_deploy.graph.style.blocks import StaticBlock, StaticLinear, StaticNorm


class PointwiseLinear(StaticLinear):
    """A linear layer over the channels of x (1, in, 1, tokens), weight (out, in, 1, 1)."""

    def __init__(self, affine: Affine, dtype: torch.dtype) -> None:
        super().__init__(Affine(affine.weight.T[:, :, None, None], affine.bias), dtype)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)


class ChannelNorm(StaticNorm):
    """LayerNorm over the channels of x (1, dim, 1, tokens)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(dim=1, keepdim=True)  # written as coremltools knows a norm over axis 1
        x = x * torch.rsqrt((x * x).mean(dim=1, keepdim=True) + self.eps)
        if self.bias is None:  # folded away, and the scale with it
            return x
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class PointwiseBlock(StaticBlock):
    """A trained block on x (1, dim, 1, tokens)."""

    linear, norm = PointwiseLinear, ChannelNorm

    def queries(self, normed: Tensor) -> Tensor:
        """Scaled queries (1, dim, 1, tokens) of normed (1, dim, 1, tokens), head after head."""
        return self.q(normed)

    def keys(self, normed: Tensor) -> KV:
        """Keys and values of normed, each (1, dim, 1, tokens), head after head."""
        return KV(*self.kv(normed).chunk(2, dim=1))

    def finish(self, x: Tensor, q: Tensor, kv: KV, mask: Tensor | None = None) -> Tensor:
        """x (1, dim, 1, n) after attention of q over kv and the MLP; `mask` (1, keys, 1, 1 or n) is added."""
        x = x + self.proj(self._attended(q, kv, mask))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        normed = self.norm1(x)
        if self.fused:
            q, k, v = self.qkv(normed).chunk(3, dim=1)
            return self.finish(x, q, KV(k, v), mask)
        return self.finish(x, self.queries(normed), self.keys(normed), mask)

    def _attended(self, q: Tensor, kv: KV, mask: Tensor | None) -> Tensor:
        """Values mixed by attention (1, dim, 1, n): each head's keys stand on the channel axis of its weights."""
        if kv.k.shape[-1] == 1:  # a token alone with itself: its weight is 1
            return kv.v
        parts = zip(
            self._split(q, 1), self._split(kv.k.transpose(1, 3), 3), self._split(kv.v, 1), strict=True
        )
        heads = []
        for query, key, value in parts:
            logits = mixed(key, query)  # (1, keys, 1, head_dim) by (1, head_dim, 1, n)
            heads.append(mixed(value, (logits if mask is None else logits + mask).softmax(dim=1)))
        return heads[0] if len(heads) == 1 else torch.cat(heads, dim=1)

    def _split(self, x: Tensor, axis: int) -> tuple[Tensor, ...]:
        """The heads of x, whose channels are on `axis`."""
        return (x,) if self.num_heads == 1 else x.chunk(self.num_heads, dim=axis)


@dataclass(frozen=True)
class Parts:
    """The classes that a layout's graph is made of."""

    linear: type[StaticLinear]
    norm: type[StaticNorm]
    block: type[StaticBlock]


PARTS = {
    "bsd": Parts(StaticLinear, StaticNorm, StaticBlock),
    "bc1s": Parts(PointwiseLinear, ChannelNorm, PointwiseBlock),
}
