"""A trained block as the static graph holds it: weights once, in the layout the product reads, in parts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.graph.maths.rewrites import KV, Affine, fold_norm, fold_scale
from morvit_deploy.model.reference import Block


class StaticLinear(nn.Module):
    """x @ weight + bias with weight (in, out), so that no runtime needs a transposed copy of its own.

    Computed in the weight's own precision, whatever x comes in: half of it where the weights have been halved.
    """

    def __init__(self, affine: Affine, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(affine.weight.to(dtype).contiguous(), requires_grad=False)
        self.bias = None if affine.bias is None else nn.Parameter(affine.bias.to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype) @ self.weight
        return x if self.bias is None else x + self.bias


class StaticNorm(nn.Module):
    """LayerNorm whose affine part has been folded away or is kept."""

    def __init__(self, norm: nn.LayerNorm, folded: bool) -> None:
        super().__init__()
        self.eps = norm.eps
        self.weight = nn.Parameter(
            torch.ones_like(norm.weight) if folded else norm.weight, requires_grad=False
        )
        self.bias = None if folded else nn.Parameter(norm.bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class StaticBlock(nn.Module):
    """One unique block, applied as often as the unrolled graph asks.

    `fused` keeps Q, K and V in one weight. A block that is asked for the queries of fewer tokens than its keys
    (rewrites 3 and 4) holds them as two weights: a slice of a shared weight would be copied by the exporter.
    """

    linear: type[StaticLinear] = StaticLinear
    norm: type[StaticNorm] = StaticNorm

    def __init__(self, block: Block, *, fold: bool, fused: bool, attention: str = "manual") -> None:
        super().__init__()
        self.num_heads, self.attention = block.attn.num_heads, attention
        self.activation = block.mlp.activation
        dim = block.attn.proj.in_features
        dtype = block.attn.proj.weight.dtype
        norms = (block.norm1, block.norm2) if fold else (None, None)
        qkv = affine_of(block.attn.qkv, norms[0])
        q = _columns(qkv, 0, dim)
        if attention == "manual":  # the fused operator scales by itself
            q = fold_scale((dim // self.num_heads) ** -0.5, q)
        kv = _columns(qkv, dim, 3 * dim)
        self.norm1 = self.norm(block.norm1, fold)
        self.norm2 = self.norm(block.norm2, fold)
        if fused:
            self.qkv = self.linear(_side_by_side(q, kv), dtype)
        else:
            self.q, self.kv = self.linear(q, dtype), self.linear(kv, dtype)
        self.fused = fused
        self.proj = self.linear(affine_of(block.attn.proj, None), dtype)
        self.fc1 = self.linear(affine_of(block.mlp.fc1, norms[1]), dtype)
        self.fc2 = self.linear(affine_of(block.mlp.fc2, None), dtype)

    def queries(self, normed: Tensor) -> Tensor:
        """Scaled queries (…, heads, tokens, head_dim) of normed (…, tokens, dim)."""
        return self._heads(self.q(normed), 1)[0]

    def keys(self, normed: Tensor) -> KV:
        """Keys and values of normed (…, tokens, dim)."""
        return KV(*self._heads(self.kv(normed), 2))

    def finish(self, x: Tensor, q: Tensor, kv: KV, mask: Tensor | None = None) -> Tensor:
        """x (…, n, dim) after attention of q over kv and the MLP, residuals included.

        `mask` is added to the attention logits (…, heads, n, keys). The residual stream, the norms and the softmax
        have the precision of x, which stays whole where the weights have been halved.
        """
        mixed = (_fused if self.attention == "fused" else _mixed)(q, kv, x.dtype, mask)
        x = x + self.proj(mixed.transpose(-3, -2).flatten(-2)).to(x.dtype)
        return x + self.fc2(self.activation(self.fc1(self.norm2(x)))).to(x.dtype)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (…, n, dim): every token queries every other."""
        normed = self.norm1(x)
        if self.fused:
            q, k, v = self._heads(self.qkv(normed), 3)
        else:
            q, (k, v) = self.queries(normed), self.keys(normed)
        return self.finish(x, q, KV(k, v), mask)

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(…, tokens, parts·dim) to `parts` tensors (…, heads, tokens, head_dim)."""
        split = x.unflatten(-1, (parts * self.num_heads, -1)).transpose(-3, -2)
        return split.chunk(parts, dim=-3)


def _mixed(q: Tensor, kv: KV, whole: torch.dtype, mask: Tensor | None) -> Tensor:
    """Values mixed by attention, for each query (…, heads, n, head_dim); the softmax in precision `whole`."""
    if kv.k.shape[-2] == 1:  # a token alone with itself: its weight is 1
        return kv.v
    logits = (q @ kv.k.transpose(-2, -1)).to(whole)
    return (logits if mask is None else logits + mask).softmax(dim=-1).to(kv.v.dtype) @ kv.v


def _fused(q: Tensor, kv: KV, _whole: torch.dtype, mask: Tensor | None) -> Tensor:
    """The same by one operator, for queries that are not scaled yet."""
    if kv.k.shape[-2] == 1:
        return kv.v
    return F.scaled_dot_product_attention(q, kv.k, kv.v, attn_mask=mask)


def affine_of(linear: nn.Linear, norm: nn.LayerNorm | None) -> Affine:
    """A trained Linear as (in, out), folded with the norm before it, computed in float64."""
    affine = Affine(linear.weight.double().T, None if linear.bias is None else linear.bias.double())
    return affine if norm is None else fold_norm(norm.weight.double(), norm.bias.double(), affine)


def _columns(affine: Affine, start: int, stop: int) -> Affine:
    return Affine(affine.weight[:, start:stop], None if affine.bias is None else affine.bias[start:stop])


def _side_by_side(a: Affine, b: Affine) -> Affine:
    bias = None if a.bias is None or b.bias is None else torch.cat([a.bias, b.bias])
    return Affine(torch.cat([a.weight, b.weight], dim=1), bias)
