"""EViT and DynamicViT over timm's own blocks, batched, by the published arithmetic and under their tensors' names."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rows(x: Tensor, index: Tensor) -> Tensor:
    """Rows index (batch, k) of x (batch, n, dim)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[-1]))


class EViT(nn.Module):
    """At `layers`, between attention and MLP, the tokens that CLS attends to most go on, and a fused one."""

    def __init__(self, vit: Any, rate: float, layers: tuple[int, ...], fuse: bool) -> None:
        super().__init__()
        self.vit, self.rate, self.layers, self.fuse = vit, rate, layers, fuse

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return self.vit.state_dict(*args, **kwargs)

    def forward(self, images: Tensor) -> Tensor:
        vit = self.vit
        x = vit._pos_embed(vit.patch_embed(images))
        for number, block in enumerate(vit.blocks):
            normed, heads = block.norm1(x), block.attn.num_heads
            q, k, v = block.attn.qkv(normed).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            weights = (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1)  # (batch, heads, n, n)
            x = x + block.ls1(block.attn.proj((weights @ v).transpose(1, 2).flatten(2)))
            kept = math.ceil(self.rate * (x.shape[1] - 1))
            if number in self.layers and kept < x.shape[1] - 1:
                scores = weights[:, :, 0, 1:].mean(1)
                best = scores.topk(kept, dim=1).indices
                others = torch.ones_like(scores).scatter(1, best, 0)
                fused = (scores * others)[:, None] @ x[:, 1:]
                x = torch.cat([x[:, :1], rows(x[:, 1:], best), *([fused] if self.fuse else [])], 1)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return vit.head(vit.norm(x)[:, 0])


class Predictor(nn.Module):
    """DynamicViT's predictor, under its own names."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.GELU(),
            nn.Linear(dim // 2, dim // 4),
            nn.GELU(),
            nn.Linear(dim // 4, 2),
        )

    def forward(self, x: Tensor) -> Tensor:
        own, shared = self.in_conv(x).chunk(2, dim=-1)
        shared = shared.mean(1, keepdim=True).expand_as(own)
        return F.log_softmax(self.out_conv(torch.cat([own, shared], -1)), dim=-1)


class DynamicViT(nn.Module):
    """Before `layers`, a predictor ranks the patch tokens; int(N · rate^r) go on at step r."""

    def __init__(self, vit: Any, rate: float, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.vit, self.rate, self.layers = vit, rate, layers
        self.score_predictor = nn.ModuleList(Predictor(vit.embed_dim) for _ in layers)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        theirs = {f"score_predictor.{name}": t for name, t in self.score_predictor.state_dict().items()}
        return {**self.vit.state_dict(), **theirs}

    def forward(self, images: Tensor) -> Tensor:
        vit = self.vit
        x = vit._pos_embed(vit.patch_embed(images))
        patches = x.shape[1] - 1
        for number, block in enumerate(vit.blocks):
            if number in self.layers:
                step = self.layers.index(number)
                scores = self.score_predictor[step](x[:, 1:])[..., 0]
                best = scores.argsort(dim=1, descending=True)[:, : int(patches * self.rate ** (step + 1))]
                x = torch.cat([x[:, :1], rows(x[:, 1:], best)], 1)
            x = block(x)
        return vit.head(vit.norm(x)[:, 0])
