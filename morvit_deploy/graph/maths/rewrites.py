"""The six exact rewrites from the dynamic model to a static graph, as pure functions.

All are exact in real arithmetic; `tests/graph/maths/test_rewrites.py` compares each with the reference in float64.
h is (…, tokens, dim) with CLS first; order is (…, n), positions among the patch tokens of h. The leading axis is the
batch. A graph for one image has none, so that its products are plain matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from morvit_deploy.graph.maths.layouts import BSD, RowLayout


class KV(NamedTuple):
    """Keys and values of a block, each (…, heads, tokens, head_dim)."""

    k: Tensor
    v: Tensor


class KeyedBlock(Protocol):
    """The parts of a block that rewrites 3, 4 and 6 apply to different sets of tokens."""

    @property
    def unformed(self) -> bool:
        """Whether it attends to states instead of keys and values (rewrite 6)."""

    def norm1(self, x: Tensor) -> Tensor: ...
    def queries(self, normed: Tensor) -> Tensor: ...
    def keys(self, normed: Tensor) -> KV: ...
    def finish(self, x: Tensor, q: Tensor, kv: KV, mask: Tensor | None = None) -> Tensor: ...
    def over_states(self, querying: Tensor, normed: Tensor, mask: Tensor | None) -> Tensor: ...
    def update(self, x: Tensor, attended: Tensor) -> Tensor: ...


# 1 ---------------------------------------------------------------------------------------------------------


MOST_RANKED = 3840  # largest k of TensorRT's TopK


def rank(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rewrite 1, top-k of fixed k: return the k highest values of z (…, n), best first, and their positions.

    Replaces the paper's percentile (§3.2). ONNX resolves ties to the lower position; other runtimes do not specify
    them, so decisions are compared only on images with a routing margin above zero. More than MOST_RANKED tokens are
    ranked in groups, so that each TopK is one that TensorRT builds; then −∞ is returned as the lowest finite number.
    """
    if k <= MOST_RANKED:
        values, order = torch.topk(z, k, dim=-1)
        return values, order
    places, left = torch.arange(z.shape[-1]), z.clamp(min=torch.finfo(z.dtype).min)
    groups: list[tuple[Tensor, Tensor]] = []
    for start in range(0, k, MOST_RANKED):
        if groups:  # whichever of equal values a TopK took, no position is taken twice
            taken = (groups[-1][1][..., None] == places).any(dim=-2)
            left = left.masked_fill(taken, float("-inf"))
        values, order = torch.topk(left, min(MOST_RANKED, k - start), dim=-1)
        groups.append((values, order))
    return torch.cat([values for values, _ in groups], dim=-1), torch.cat(
        [order for _, order in groups], dim=-1
    )


def inverse(numbers: Tensor) -> Tensor:
    """Return the order that sorts numbers (…, n), which are a permutation of 0 … n − 1.

    The sorted numbers are read, too, although they are 0 … n − 1: ONNX Runtime before 1.19 may write a TopK's output
    that nothing reads over other values.
    """
    n = numbers.shape[-1]
    if n <= MOST_RANKED:
        ascending, order = torch.sort(numbers, dim=-1)
    else:
        falling, order = rank(-numbers.to(torch.float32), n)
        ascending = (-falling).to(torch.int64)
    return order + (ascending - torch.arange(n))


# 2 ---------------------------------------------------------------------------------------------------------


def take(h: Tensor, index: Tensor) -> Tensor:
    """Return rows index (…, k) of h (…, n, dim) by one Gather of whole rows, without expanded indices."""
    return h.index_select(0, index) if h.ndim == 2 else _take_batch(h, index)


def take_numbers(values: Tensor, index: Tensor) -> Tensor:
    """Return the numbers index (…, k) of values (…, n) by one Gather."""
    return (
        values.index_select(0, index) if values.ndim == 1 else _take_batch(values[..., None], index)[..., 0]
    )


def _take_batch(h: Tensor, index: Tensor) -> Tensor:
    batch, tokens, dim = h.shape
    base = torch.arange(batch, device=h.device)[:, None] * tokens
    rows = h.reshape(-1, dim).index_select(0, (index + base).reshape(-1))
    return rows.reshape(batch, index.shape[1], dim)


def partition(h: Tensor, order: Tensor, k: int) -> tuple[Tensor, Tensor | None]:
    """Rewrite 2, partition instead of scatter: return CLS with the first k tokens of order, and the other tokens.

    Attention and MLP do not depend on token order once positions are embedded, so the active tokens stay in routed
    order and are not scattered back. The second result is None if `order` contains only the kept tokens.
    """
    cls = order.new_zeros((*order.shape[:-1], 1))  # CLS is row 0
    rows = torch.cat([cls, order + 1], dim=-1)
    if order.shape[-1] == k:
        return take(h, rows), None
    return take(h, rows[..., : 1 + k]), take(h, rows[..., 1 + k :])


def partition_all(h: Tensor, order: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Rewrite 2 if CLS is routed too: return the first k tokens of order (…, tokens), and the other tokens.

    A token that skips this step is a candidate at the next, so the caller appends the others to the tokens that ran.
    CLS moves to its position in the order.
    """
    return take(h, order[..., :k]), take(h, order[..., k:])


# 3 ---------------------------------------------------------------------------------------------------------


def cls_only(
    block: KeyedBlock,
    h: Tensor,
    mask: Tensor | None = None,
    row: Tensor | None = None,
    *,
    layout: RowLayout = BSD,
    rows: Callable[[Tensor, Tensor], Tensor] = take,
) -> Tensor:
    """Rewrite 3, compute only what the logits need: return the new CLS state (…, 1, dim).

    Q, projection and MLP run on one row, K and V, if they are formed, on all of h. `mask` is added to the attention
    logits. row (…, 1) is the position of CLS, by default the first; `rows` selects it from h.
    """
    normed = block.norm1(h)
    x, querying = (one_row(states, row, layout, rows) for states in (h, normed))
    if block.unformed:
        return block.update(x, block.over_states(querying, normed, mask))
    return block.finish(x, block.queries(querying), block.keys(normed), mask)


def one_row(
    h: Tensor,
    row: Tensor | None,
    layout: RowLayout = BSD,
    rows: Callable[[Tensor, Tensor], Tensor] = take,
) -> Tensor:
    """Return row (…, 1) of h (…, n, dim), by default the first, as (…, 1, dim)."""
    return layout.first(h, 1) if row is None else rows(h, row)


# 4 ---------------------------------------------------------------------------------------------------------


def frozen_keys(
    block: KeyedBlock,
    x: Tensor,
    fresh: Tensor | None,
    carried: KV | None,
    queries: int,
    layout: RowLayout = BSD,
) -> tuple[Tensor, KV | None]:
    """Rewrite 4, frozen keys: update the first `queries` running tokens of x, with all tokens as keys.

    fresh (…, m, dim) are the tokens that left since this block last ran. Their states are final, so their K and V
    under this block are too: they are computed once and added to `carried`, which is returned for the next step.
    """
    running = layout.count(x)
    normed = block.norm1(x if fresh is None else layout.join([x, fresh]))
    # the order of keys does not matter; running, fresh, carried needs one Concat
    kv = join(block.keys(normed), carried, layout)
    if fresh is not None:
        carried = KV(layout.beyond(kv.k, running), layout.beyond(kv.v, running))
    return block.finish(layout.first(x, queries), block.queries(layout.first(normed, queries)), kv), carried


def join(a: KV, b: KV | None, layout: RowLayout = BSD) -> KV:
    """Concatenate the keys and values of two groups of tokens."""
    return a if b is None else KV(layout.join([a.k, b.k]), layout.join([a.v, b.v]))


# 5 ---------------------------------------------------------------------------------------------------------


class Affine(NamedTuple):
    """x @ weight + bias, with weight (in, out)."""

    weight: Tensor
    bias: Tensor | None


def fold_norm(scale: Tensor, shift: Tensor, linear: Affine) -> Affine:
    """Rewrite 5: fold a LayerNorm's scale and shift into the linear layer that follows it."""
    bias = shift @ linear.weight
    return Affine(scale[:, None] * linear.weight, bias if linear.bias is None else linear.bias + bias)


def fold_scale(factor: float, linear: Affine) -> Affine:
    """Rewrite 5: fold a constant factor on the output, such as the attention scale of Q."""
    return Affine(linear.weight * factor, None if linear.bias is None else linear.bias * factor)


def fold_pixels(
    patch: Affine, mean: tuple[float, ...], std: tuple[float, ...], white: float = 255.0
) -> Affine:
    """Rewrite 5: fold (x / white - mean) / std into the patch projection, whose rows are (row, column, channel).

    The projection then takes raw pixels, from 0 to `white`.
    """
    repeats = patch.weight.shape[0] // len(mean)
    means = patch.weight.new_tensor(mean).repeat(repeats)
    scales = 1 / patch.weight.new_tensor(std).repeat(repeats)
    bias = -(means * scales) @ patch.weight
    weight = (scales / white)[:, None] * patch.weight
    return Affine(weight, bias if patch.bias is None else patch.bias + bias)


def fold_positions(cls_token: Tensor | None, pos_embed: Tensor, bias: Tensor) -> tuple[Tensor | None, Tensor]:
    """Rewrite 5: add CLS to its position, and the patch bias to the patch positions.

    cls_token (1, 1, dim), pos_embed (1, N+1, dim), bias (dim); returns (1, 1, dim) and (1, N, dim). Without CLS,
    pos_embed is (1, N, dim).
    """
    if cls_token is None:
        return None, pos_embed + bias
    return cls_token + pos_embed[:, :1], pos_embed[:, 1:] + bias


# 6 ---------------------------------------------------------------------------------------------------------


def spread_heads(q: Tensor, own: Tensor) -> Tensor:
    """Rewrite 6, unformed keys: return q (…, 1, dim) once for each head, without other heads' channels.

    own (heads, dim) is 1 where a channel belongs to the head; returns (…, heads, dim). Then q·(X·Wk)ᵀ = (q·Wkᵀ)·Xᵀ
    for each head. A bias of the keys adds the same number to all logits of a query, which the softmax removes.
    """
    return q * own


def attend_states(queries: Tensor, x: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Rewrite 6: attend with queries (…, heads, dim), multiplied by Wkᵀ, to states x (…, n, dim): (…, heads, dim).

    The softmax is computed in `dtype`. `mask` is added to the logits (…, heads, n).
    """
    logits = (queries @ x.transpose(-2, -1)).to(dtype)
    return (logits if mask is None else logits + mask).softmax(dim=-1).to(x.dtype) @ x


def collect_heads(rows: Tensor, own: Tensor) -> Tensor:
    """Rewrite 6: take each head's channels from its row of (…, heads, dim): (…, 1, dim).

    a·(X·Wv) = (a·X)·Wv, and the weights a of a head add up to 1, so a bias of the values is added once.
    """
    return (rows * own).sum(dim=-2, keepdim=True)
