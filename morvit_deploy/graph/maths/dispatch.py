"""Dispatch inside a graph as pure tensor functions: token counts, bucket tables, sorting by depth.

The leading axis is the batch; a graph for one image has none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import rank

# added to a hidden key's attention logit: far below any logit, so that its weight is exactly zero. Minus infinity
# would mean the same, but TensorRT-RTX takes it for padding and computes sequence lengths in up to six more kernels
HIDDEN = -1e30


def counts_of(depth: Tensor, layers: int) -> Tensor:
    """Return how many tokens run each layer, int64 (…, layers), from the depth (…, N) of each patch token."""
    each = torch.arange(1, layers + 1, dtype=depth.dtype)
    return (depth[..., None, :] >= each[:, None]).sum(dim=-1)


def sort_by_depth(depth: Tensor) -> Tensor:
    """Return the positions of depth (…, N), deepest first, ties by position.

    All keys differ, so TopK gives the same order in every runtime.
    """
    tokens = depth.shape[-1]
    keys = (depth * tokens - torch.arange(tokens)).to(torch.float32)  # whole numbers below 2²⁴: exact
    return rank(keys, tokens)[1]


def key_mask(runs: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask to add to attention logits (…, heads, queries, keys); runs (…, keys) is false for hidden keys."""
    mask = torch.where(runs, 0.0, HIDDEN).to(dtype)
    return mask if mask.ndim == 1 else mask[..., None, None, :]  # that of one image broadcasts as it is


def predicted(count: Tensor, upto: tuple[int, ...]) -> Tensor:
    """Return int32 (…) bucket indices from the counts (…) at the first routed step, by a table of upper bounds."""
    bounds = torch.tensor(upto[:-1], dtype=count.dtype)
    return (count[..., None] > bounds).to(torch.int32).sum(dim=-1, dtype=torch.int32)


def cheapest_fitting(counts: Tensor, capacities: tuple[tuple[int, ...], ...]) -> Tensor:
    """Return int32 (…) indices of the first bucket that fits counts (…, steps); the last bucket fits all."""
    limits = torch.tensor(capacities, dtype=counts.dtype)  # (buckets, steps)
    too_small = (counts[..., None, :] > limits).any(dim=-1)  # (…, buckets)
    number = torch.where(too_small, len(capacities), torch.arange(len(capacities)))
    return number.amin(dim=-1).to(torch.int32)
