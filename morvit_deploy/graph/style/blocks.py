"""A trained block in a static graph, with weights transposed for products and Q optionally separate from K and V."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.graph.maths.rewrites import (
    KV,
    Affine,
    attend_states,
    collect_heads,
    fold_norm,
    fold_scale,
    spread_heads,
)
from morvit_deploy.model.layers import Block


class StaticLinear(nn.Module):
    """x @ weight + bias with weight (in, out), so that no runtime stores a transposed copy.

    Computed in the weight's precision, which may be lower than that of x.
    """

    def __init__(self, affine: Affine, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(affine.weight.to(dtype).contiguous(), requires_grad=False)
        self.bias = None if affine.bias is None else nn.Parameter(affine.bias.to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype) @ self.weight
        return x if self.bias is None else x + self.bias


class StaticNorm(nn.Module):
    """LayerNorm; with `folded`, its scale and shift are folded into the linear layers that follow."""

    def __init__(self, norm: nn.LayerNorm, folded: bool) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(
            torch.ones_like(norm.weight) if folded else norm.weight, requires_grad=False
        )
        self.bias = None if folded else nn.Parameter(norm.bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


Projections = Literal["joint", "apart", "unformed"]


class HeadChannels(nn.Module):
    """Which channels belong to which head: 1 or 0 (heads, dim), for rewrite 6."""

    def __init__(self, own: Tensor) -> None:
        super().__init__()
        self.register_buffer("own", own)

    own: Tensor


class StaticBlock(nn.Module):
    """A unique block on states (…, tokens, dim), which the unrolled graph applies several times.

    `projections` says how it holds the weights of Q, K and V. "joint": as one weight. "apart": Q apart from K and V,
    for fewer queries than keys (rewrites 3 and 4), because the exporter would copy slices of a joint weight.
    "unformed": as three weights, that of K transposed (rewrite 6). Attention is products and a softmax.
    """

    linear: type[StaticLinear] = StaticLinear
    norm: type[StaticNorm] = StaticNorm
    scales_queries = True  # the attention scale is folded into Q

    def __init__(self, block: Block, *, fold: bool, projections: Projections) -> None:
        super().__init__()
        self.num_heads, self.projections = block.attn.num_heads, projections
        self.activation = block.mlp.activation
        dim = block.attn.proj.in_features
        dtype = block.attn.proj.weight.dtype
        norms = (block.norm1, block.norm2) if fold else (None, None)
        qkv = affine_of(block.attn.qkv, norms[0])
        q, kv = columns(qkv, 0, dim), columns(qkv, dim, 3 * dim)
        if self.scales_queries or self.unformed:
            q = fold_scale((dim // self.num_heads) ** -0.5, q)
        self.norm1 = self.norm(block.norm1, fold)
        self.norm2 = self.norm(block.norm2, fold)
        if projections == "joint":
            self.qkv = self.linear(_side_by_side(q, kv), dtype)
        else:
            self.q = self.linear(q, dtype)
        if projections == "apart":
            self.kv = self.linear(kv, dtype)
        if projections == "unformed":
            self.k = self.linear(Affine(columns(kv, 0, dim).weight.T, None), dtype)
            self.v = self.linear(columns(kv, dim, 2 * dim), dtype)
            own = torch.eye(self.num_heads, dtype=dtype).repeat_interleave(dim // self.num_heads, dim=1)
            self.heads = HeadChannels(self._laid_out(own))
        self.proj = self.linear(affine_of(block.attn.proj, None), dtype)
        self.fc1 = self.linear(affine_of(block.mlp.fc1, norms[1]), dtype)
        self.fc2 = self.linear(affine_of(block.mlp.fc2, None), dtype)

    @property
    def unformed(self) -> bool:
        """Whether it attends to states instead of keys and values (rewrite 6)."""
        return self.projections == "unformed"

    def queries(self, normed: Tensor) -> Tensor:
        """Return queries (…, heads, tokens, head_dim) of normed (…, tokens, dim)."""
        return self._heads(self.q(normed), 1)[0]

    def keys(self, normed: Tensor) -> KV:
        """Return keys and values of normed (…, tokens, dim)."""
        return KV(*self._heads(self.kv(normed), 2))

    def finish(self, x: Tensor, q: Tensor, kv: KV, mask: Tensor | None = None) -> Tensor:
        """Apply attention of q over kv and the MLP to x (…, n, dim), including residuals.

        `mask` is added to the attention logits (…, heads, n, keys). The residual stream, the norms and the softmax
        keep the precision of x.
        """
        return self.update(x, self._attend(q, kv, x.dtype, mask))

    def first_weights(self, q: Tensor, kv: KV, dtype: torch.dtype, mask: Tensor | None = None) -> Tensor:
        """Return the weight that the first token gives each key, the mean over the heads, as numbers (…, keys).

        One row of the softmax that attention computes: computed again, so that attention may be one operator. `mask`
        is added to its logits (…, heads, 1, keys).
        """
        logits = (q[..., :1, :] @ kv.k.transpose(-2, -1)).to(dtype)
        logits = logits if self.scales_queries else logits * q.shape[-1] ** -0.5
        logits = logits if mask is None else logits + mask
        return logits.softmax(dim=-1).mean(dim=-3)[..., 0, :]

    def over_states(self, querying: Tensor, normed: Tensor, mask: Tensor | None) -> Tensor:
        """Attend from one row querying (…, 1, dim) to normed (…, n, dim) without keys and values: (…, 1, dim).

        `mask` is as for `finish`.
        """
        own = self.heads.own
        rows = self.k(spread_heads(self.q(querying), own))
        if mask is not None and mask.ndim > 1:
            mask = mask[..., 0, :]  # the axis of queries is that of heads
        return collect_heads(self.v(attend_states(rows, normed.to(rows.dtype), mask, normed.dtype)), own)

    def update(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the projection of attended (…, n, dim) to x, then the MLP, including residuals."""
        return self.fed(self.projected(x, attended))

    def projected(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add the projection of attended (…, n, dim) to x: the end of a block's first half."""
        added: Tensor = self.proj(attended).to(x.dtype)
        return x + added

    def fed(self, x: Tensor) -> Tensor:
        """Add the MLP to x (…, n, dim): a block's second half."""
        mlp: Tensor = self.fc2(self.activation(self.fc1(self.norm2(x)))).to(x.dtype)
        return x + mlp

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply the block to x (…, n, dim), with all tokens as queries and keys."""
        q, kv = self.read(x)
        return self.finish(x, q, kv, mask)

    def read(self, x: Tensor) -> tuple[Tensor, KV]:
        """Return the queries, keys and values of all tokens of x (…, n, dim)."""
        normed = self.norm1(x)
        if self.projections != "joint":
            return self.queries(normed), self.keys(normed)
        q, k, v = self._heads(self.qkv(normed), 3)
        return q, KV(k, v)

    def attended(self, x: Tensor, q: Tensor, kv: KV, mask: Tensor | None = None) -> Tensor:
        """Apply the first half of the block to x (…, n, dim): attention of q over kv, with the residual."""
        return self.projected(x, self._attend(q, kv, x.dtype, mask))

    def mean_keys(self, kv: KV) -> Tensor:
        """Return the mean of the heads' keys, as states (…, tokens, head_dim)."""
        return kv.k.mean(dim=-3)

    @staticmethod
    def _laid_out(own: Tensor) -> Tensor:
        """Convert own (heads, dim) to the layout of states."""
        return own

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Split x (…, tokens, parts·dim) into `parts` tensors (…, heads, tokens, head_dim)."""
        split = torch.unflatten(x, -1, (parts * self.num_heads, -1)).transpose(-3, -2)
        return split.chunk(parts, dim=-3)

    def _attend(self, q: Tensor, kv: KV, dtype: torch.dtype, mask: Tensor | None) -> Tensor:
        """Attend and concatenate the heads: (…, n, dim)."""
        alone = kv.k.shape[-2] == 1  # a single key has weight 1
        mixed = kv.v if alone else self._mix(q, kv, dtype, mask)
        return mixed.transpose(-3, -2).flatten(-2)

    def _mix(self, q: Tensor, kv: KV, dtype: torch.dtype, mask: Tensor | None) -> Tensor:
        """Attend with a softmax in `dtype`: (…, heads, n, head_dim)."""
        logits = (q @ kv.k.transpose(-2, -1)).to(dtype)
        return (logits if mask is None else logits + mask).softmax(dim=-1).to(kv.v.dtype) @ kv.v


class FusedBlock(StaticBlock):
    """A block whose attention is one operator, which scales the queries itself."""

    scales_queries = False

    def _mix(self, q: Tensor, kv: KV, dtype: torch.dtype, mask: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(q, kv.k, kv.v, attn_mask=mask)


def affine_of(linear: nn.Linear, norm: nn.LayerNorm | None) -> Affine:
    """Return a trained Linear as (in, out), with the norm before it folded in, in float64."""
    affine = Affine(linear.weight.double().T, None if linear.bias is None else linear.bias.double())
    return affine if norm is None else fold_norm(norm.weight.double(), norm.bias.double(), affine)


def columns(affine: Affine, start: int, stop: int) -> Affine:
    """Return a linear layer with only the outputs from `start` to `stop`."""
    return Affine(affine.weight[:, start:stop], None if affine.bias is None else affine.bias[start:stop])


def _side_by_side(a: Affine, b: Affine) -> Affine:
    bias = None if a.bias is None or b.bias is None else torch.cat([a.bias, b.bias])
    return Affine(torch.cat([a.weight, b.weight], dim=1), bias)
