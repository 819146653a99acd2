"""Small plain ViTs whose tokens merge, and token merging written a second time, from its published description."""

from __future__ import annotations

from typing import Any

import torch
from tiny_models import make_config
from torch import Tensor

from morvit_deploy.model.config import Config
from morvit_deploy.model.reference import MoRViT

LAYERS = 4
MERGED: list[dict[str, Any]] = [
    {"reduction": {"layers": [0, 1, 2], "proportional": False}, "capacity": [12, 9, 7]},
    {"reduction": {"layers": [0, 1, 2], "proportional": True}, "capacity": [12, 9, 7]},
    {"reduction": {"layers": [1], "proportional": True}, "capacity": [15]},
    {"reduction": {"layers": [0, 2], "proportional": True}, "capacity": [8, 4], "num_heads": 4},
    {"reduction": {"layers": [0, 1, 2], "proportional": True}, "capacity": [8, 4, 2], "qkv_bias": False},
    {"reduction": {"layers": [0, 1, 2], "proportional": True}, "capacity": [15, 14, 13], "num_heads": 1},
]


def merged_config(**changes: Any) -> Config:
    """A plain ViT of four layers on 16 patches with routing `merged`."""
    fields: dict[str, Any] = {
        "format": "morvit/2", "sharing": "none", "num_recursions": 1, "cycle_depth": LAYERS, "routing": "merged",
        "router": None, "gate": "hard", "attention_scope": "active",
    }  # fmt: skip
    return make_config(**(fields | MERGED[0] | changes))


def merged_named(changes: dict[str, Any]) -> str:
    """A readable test id."""
    return f"{changes['capacity']}-{'proportional' if changes['reduction']['proportional'] else 'plain'}"


def published(model: MoRViT, images: Tensor) -> Tensor:
    """Logits (batch, classes) by batched sorting and `scatter_reduce`, as in the published method."""
    config = model.config
    reduction, capacity = config.reduction, config.capacity
    assert reduction is not None and capacity is not None
    x = model.embed(images)  # (batch, tokens, dim)
    size = torch.ones_like(x[..., :1])
    merges = dict(zip(reduction.layers, capacity, strict=True))
    for layer, block in enumerate(model.cycle_blocks()):
        batch, tokens, dim = x.shape
        parts = block.attn.qkv(block.norm1(x)).reshape(batch, tokens, 3, config.num_heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        logits = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5
        if reduction.proportional:
            logits = logits + size.log()[:, None, None, :, 0]
        mixed = (logits.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, dim)
        x = x + block.attn.proj(mixed)
        if layer in merges:
            x, size = _merge(x, size, k.mean(dim=1), tokens - 1 - merges[layer])
        x = x + block.mlp(block.norm2(x))
    return model.classify(x[:, 0])


def _merge(x: Tensor, size: Tensor, metric: Tensor, r: int) -> tuple[Tensor, Tensor]:
    metric = metric / metric.norm(dim=-1, keepdim=True)
    scores = metric[:, ::2] @ metric[:, 1::2].transpose(-1, -2)
    scores[:, 0] = -torch.inf
    highest, partner = scores.max(dim=-1)
    edges = highest.argsort(dim=-1, descending=True)[..., None]
    unmerged, source = edges[:, r:].sort(dim=1).values, edges[:, :r]
    target = partner[..., None].gather(1, source)

    def joined(values: Tensor) -> Tensor:
        a, b = values[:, ::2], values[:, 1::2]
        width = values.shape[-1]
        moving = a.gather(1, source.expand(-1, -1, width))
        sums = b.scatter_reduce(1, target.expand(-1, -1, width), moving, reduce="sum")
        return torch.cat([a.gather(1, unmerged.expand(-1, -1, width)), sums], dim=1)

    total = joined(size)
    return joined(x * size) / total, total
