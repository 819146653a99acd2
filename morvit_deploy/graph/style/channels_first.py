"""Blocks in the channels-first layout (1, dim, 1, tokens), which suits Apple's Neural Engine.

Linear layers are 1 × 1 convolutions, norms and softmax run over the channel axis, and each head attends separately,
as Apple describes in "Deploying Transformers on the Apple Neural Engine" (2022). The weights are those of `blocks`.
"""

from __future__ import annotations

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
        x = x - x.mean(dim=1, keepdim=True)  # coremltools recognises a norm over axis 1 in this form
        x = x * torch.rsqrt((x * x).mean(dim=1, keepdim=True) + self.eps)
        if self.bias is None:  # scale and shift are folded
            return x
        # not an addition: coremltools would make a batch norm of both, whose epsilon of 1e-5 changes the scale
        return x * self.weight[:, None, None] - (-self.bias[:, None, None])


class PointwiseBlock(StaticBlock):
    """A block on x (1, dim, 1, tokens); queries, keys and values are (1, dim, 1, tokens), heads concatenated."""

    linear, norm = PointwiseLinear, ChannelNorm

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return _split(x, parts, 1)  # `_attend` splits the heads

    def mean_keys(self, kv: KV) -> Tensor:
        return torch.unflatten(kv.k, 1, (self.num_heads, -1)).mean(dim=1)

    @staticmethod
    def _laid_out(own: Tensor) -> Tensor:
        return own.T[None, :, None].contiguous()

    def first_weights(self, q: Tensor, kv: KV, dtype: torch.dtype, mask: Tensor | None = None) -> Tensor:
        n = self.num_heads
        parts = zip(_split(q[..., :1], n, 1), _split(kv.k.transpose(1, 3), n, 3), strict=True)
        logits = torch.cat([mixed(key, query) for query, key in parts], dim=-1)  # (1, keys, 1, heads)
        logits = logits if mask is None else logits + mask
        return logits.softmax(dim=1).mean(dim=-1, keepdim=True).transpose(1, 3)

    def over_states(self, querying: Tensor, normed: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from one column (1, dim, 1, 1) to normed (1, dim, 1, n): (1, dim, 1, 1), a column for each head."""
        own = self.heads.own
        logits = mixed(normed.transpose(1, 3), self.k(self.q(querying) * own))  # (1, n, 1, heads)
        weights = (logits if mask is None else logits + mask).softmax(dim=1)
        attended: Tensor = (self.v(mixed(normed, weights)) * own).sum(dim=-1, keepdim=True)
        return attended

    def _attend(self, q: Tensor, kv: KV, dtype: torch.dtype, mask: Tensor | None) -> Tensor:
        """Attend head by head to (1, dim, 1, n), with keys on the channel axis of the attention weights.

        mask (1, keys, 1, 1 or n) is added to the logits.
        """
        if kv.k.shape[-1] == 1:  # a single key has weight 1
            return kv.v
        n, heads = self.num_heads, []
        parts = (_split(q, n, 1), _split(kv.k.transpose(1, 3), n, 3), _split(kv.v, n, 1))
        for query, key, value in zip(*parts, strict=True):
            logits = mixed(key, query)  # (1, keys, 1, head_dim) by (1, head_dim, 1, n)
            heads.append(mixed(value, (logits if mask is None else logits + mask).softmax(dim=1)))
        return heads[0] if n == 1 else torch.cat(heads, dim=1)


def _split(x: Tensor, parts: int, axis: int) -> tuple[Tensor, ...]:
    """Split x into equal parts; adds no operation for one part."""
    return (x,) if parts == 1 else x.chunk(parts, dim=axis)
