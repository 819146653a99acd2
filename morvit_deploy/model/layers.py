"""The layers of the reference: plain eager PyTorch, with timm's names and layout."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.model.config import Config, RouterConfig
from morvit_deploy.model.routings.reducing import predictor_widths

PREDICTOR_EPS = 1e-5  # PyTorch's default, which DynamicViT leaves as it is
Module = TypeVar("Module", bound=nn.Module)

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
}


class Attention(nn.Module):
    """Multi-head attention."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim, bias=config.qkv_bias)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from x (..., q, dim) to context (..., k, dim), by default x itself; returns (..., q, dim)."""
        return self.mixed(x, context)[0]

    def mixed(
        self, x: Tensor, context: Tensor | None = None, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same, with the softmax weights (..., heads, q, k) and the keys (..., heads, k, head_dim).

        `bias` is added to the attention logits.
        """
        context = x if context is None else context
        dim = x.shape[-1]
        weight_q, weight_kv = self.qkv.weight.split((dim, 2 * dim))
        bias_q, bias_kv = (None, None) if self.qkv.bias is None else self.qkv.bias.split((dim, 2 * dim))
        q = self._heads(F.linear(x, weight_q, bias_q))
        k, v = (self._heads(part) for part in F.linear(context, weight_kv, bias_kv).chunk(2, dim=-1))
        logits = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (..., heads, q, k)
        weights = (logits if bias is None else logits + bias).softmax(dim=-1)
        out: Tensor = self.proj((weights @ v).transpose(-3, -2).flatten(-2))
        return out, weights, k

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))
        return heads.transpose(-3, -2)  # (..., heads, tokens, head_dim)


class Mlp(nn.Module):
    """fc1, activation, fc2."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class Block(nn.Module):
    """A pre-norm Transformer block with residuals."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Update x (..., q, dim); keys and values are computed from context (..., k, dim), by default x."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed if context is None else self.norm1(context))
        return self.fed(x)

    def attended(self, x: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The first half on x (..., n, dim): x with the attention added, its softmax weights and its keys.

        They are as `Attention.mixed` returns them.
        """
        out, weights, keys = self.attn.mixed(self.norm1(x), bias=bias)
        return x + out, weights, keys

    def fed(self, x: Tensor) -> Tensor:
        """The second half on x (..., n, dim): x with the MLP added."""
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    """Embed an image (batch, channels, height, width) as patches (batch, N, dim), row by row."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(
            config.in_channels,
            config.embed_dim,
            config.patch_size,
            stride=config.patch_stride or config.patch_size,
        )

    def forward(self, images: Tensor) -> Tensor:
        rows: Tensor = self.proj(images)  # (batch, dim, rows, columns)
        return rows.flatten(2).transpose(1, 2)


class Router(nn.ModuleList):
    """An MLP from token states to router logits; GELU after the first layer, ReLU after the others."""

    def __init__(self, config: RouterConfig, in_dim: int, out_dim: int) -> None:
        widths = [in_dim, *config.hidden, out_dim]
        super().__init__(nn.Linear(a, b, bias=config.bias) for a, b in pairwise(widths))

    def linears(self) -> list[nn.Linear]:
        """Return the linear layers in order."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Map states x (..., dim) to logits (..., out_dim)."""
        for j, layer in enumerate(self.linears()):
            if j:
                x = F.gelu(x) if j == 1 else F.relu(x)
            x = layer(x)
        return x


class Predictor(nn.Module):
    """DynamicViT's predictor: from the states of all patch tokens to a logit each, how much each should go on."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.embed_dim, eps=PREDICTOR_EPS)
        self.embed = nn.Linear(config.embed_dim, config.embed_dim)
        widths = predictor_widths(config)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def linears(self) -> list[nn.Linear]:
        """Return the linear layers after `embed`, in order."""
        return [layer for layer in self.layers if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Map states x (..., n, dim) to logits (..., n, 1): that of going on minus that of leaving.

        A token keeps the first half of its channels; the other half is the mean over all n tokens.
        """
        x = F.gelu(self.embed(self.norm(x)))
        half = x.shape[-1] // 2
        own, shared = x[..., :half], x[..., half:]
        x = torch.cat([own, shared.mean(dim=-2, keepdim=True).expand_as(shared)], dim=-1)
        for j, layer in enumerate(self.linears()):
            x = layer(F.gelu(x) if j else x)
        return x[..., :1] - x[..., 1:]


def double_of(module: Module) -> Module:
    """Return a copy of a module in float64, without a copy of its weights in float32 in between."""
    wide: dict[int, object] = {
        id(one): nn.Parameter(one.detach().double(), requires_grad=one.requires_grad)
        for one in module.parameters()
    }
    return copy.deepcopy(module, wide).double()
