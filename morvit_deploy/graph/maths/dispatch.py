"""Choosing a bucket inside a graph, as pure tensor functions: counts, the dispatch table, the order by depth.

Shapes: the leading axis is the batch, or absent in a graph for one image.
"""

from __future__ import annotations

import torch
from torch import Tensor


def counts_of(depth: Tensor, layers: int) -> Tensor:
    """How many tokens run each layer, int64 (…, layers), from the depth (…, N) of each patch token."""
    each = torch.arange(1, layers + 1, dtype=depth.dtype)
    return (depth[..., None, :] >= each[:, None]).sum(dim=-1)


def sort_by_depth(depth: Tensor) -> Tensor:
    """Positions of depth (…, N), deepest first, on a tie the lower position first.

    The keys are all different, so that every runtime's TopK gives the same order.
    """
    tokens = depth.shape[-1]
    keys = (depth * tokens - torch.arange(tokens)).to(torch.float32)  # whole numbers below 2²⁴: exact
    return torch.topk(keys, tokens, dim=-1).indices


def key_mask(runs: Tensor, dtype: torch.dtype) -> Tensor:
    """Added to attention logits (…, heads, queries, keys): hides the keys that do not run, runs (…, keys)."""
    return torch.where(runs, 0.0, float("-inf")).to(dtype)[..., None, None, :]


def predicted(count: Tensor, upto: tuple[int, ...]) -> Tensor:
    """int32 (…) bucket numbers from the count at the first routed step (…), by the table of upper bounds."""
    bounds = torch.tensor(upto[:-1], dtype=count.dtype)
    return (count[..., None] > bounds).sum(dim=-1).to(torch.int32)


def cheapest_fitting(counts: Tensor, capacities: tuple[tuple[int, ...], ...]) -> Tensor:
    """int32 (…): the first bucket whose capacity is enough for counts (…, steps); the last one fits all."""
    limits = torch.tensor(capacities, dtype=counts.dtype)  # (buckets, steps)
    too_small = (counts[..., None, :] > limits).any(dim=-1)  # (…, buckets)
    number = torch.where(too_small, len(capacities), torch.arange(len(capacities)))
    return number.amin(dim=-1).to(torch.int32)
