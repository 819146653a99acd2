"""Source-side models of the families whose code is in no package: their arithmetic, under their tensors' names.

Written from the arithmetic (README of each family's file in `sources/families`), not from the package's own model:
every token is computed in every layer, and nothing is partitioned, frozen or folded.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def randomise(model: nn.Module, seed: int, router_scale: float = 1.0) -> nn.Module:
    """Weights in which every tensor matters, so that a swapped or dropped one shows."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if not tensor.is_floating_point() or "capacity" in name:
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if "norm" in name or "ls" in name:
            noise = 0.3 * noise + float(name.endswith(("weight", "gamma")))
        elif tensor.ndim > 1 and "embed" not in name and "token" not in name:
            noise = noise / tensor.shape[1:].numel() ** 0.5
        if "router" in name:
            noise = noise * router_scale
        tensor.data.copy_(noise)
    return model.eval().requires_grad_(False)


def attend(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """(batch, tokens, dim) each; softmax(q·k / √d)·v for each head."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.mT / q.shape[-1] ** 0.5
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)


class DoRA(nn.Module):
    """A linear layer whose weight is rho ⊙ (direction + (alpha / rank)·B·A)."""

    def __init__(self, dim: int, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base_layer = nn.Linear(dim, dim)
        self.alpha = alpha
        self.dora_A = nn.Parameter(torch.randn(rank, dim, generator=generator) * 0.2)
        self.dora_B = nn.Parameter(torch.randn(dim, rank, generator=generator) * 0.2)
        self.rho = nn.Parameter(torch.ones(dim))
        self.register_buffer("W_hat_init", torch.zeros(dim, dim))

    def settle(self) -> None:
        """Direction and magnitude of the base weight as it is when DoRA begins; then training moved the magnitude."""
        length = self.base_layer.weight.norm(dim=1)
        self.W_hat_init = self.base_layer.weight / length[:, None]
        self.rho.data = length * 1.1

    def weight(self) -> Tensor:
        change = self.alpha / self.dora_A.shape[0] * self.dora_B @ self.dora_A
        return self.rho[:, None] * (self.W_hat_init + change)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), self.base_layer.bias)


class EdgeBlock(nn.Module):
    """Edge-RecViT's block."""

    def __init__(self, dim: int, heads: int, mlp: int, eps: float, act: str) -> None:
        super().__init__()
        self.heads, self.act = heads, F.gelu if act == "gelu" else F.relu
        names = ("query", "key", "value", "proj")
        self.attention = nn.ModuleDict({name: nn.Linear(dim, dim) for name in names})
        self.layernorm_before, self.layernorm_after = nn.LayerNorm(dim, eps), nn.LayerNorm(dim, eps)
        self.intermediate, self.output = nn.Linear(dim, mlp), nn.Linear(mlp, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layernorm_before(x)
        mixed = attend(*(self.attention[n](y) for n in ("query", "key", "value")), self.heads)
        x = x + self.attention["proj"](mixed)
        return x + self.output(self.act(self.intermediate(self.layernorm_after(x))))


class EdgeRecViT(nn.Module):
    """Depth of each token from its embedding, CLS all layers; every layer computes every token, then gates."""

    def __init__(
        self,
        *,
        image: int = 32,
        patch: int = 8,
        dim: int = 16,
        heads: int = 2,
        mlp: int = 24,
        layers: int = 5,
        classes: int = 10,
        eps: float = 1e-12,
        act: str = "gelu",
    ) -> None:
        super().__init__()
        self.layers = layers
        embeddings = nn.Module()
        embeddings.patch_embeddings = nn.Conv2d(3, dim, patch, patch)
        embeddings.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        embeddings.position_embeddings = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, dim))
        router = nn.Module()
        router.router = nn.Sequential(
            nn.Linear(dim, 2 * dim, bias=False),
            nn.GELU(),
            nn.Linear(2 * dim, 2 * dim, bias=False),
            nn.ReLU(),
            nn.Linear(2 * dim, layers, bias=False),
        )
        blocks = {
            f"block_{name}": EdgeBlock(dim, heads, mlp, eps, act) for name in ("head", "shared", "tail")
        }
        self.mor_vit = nn.ModuleDict(
            {"embeddings": embeddings, "router": router, **blocks, "layernorm": nn.LayerNorm(dim, eps)}
        )
        self.classifier = nn.Linear(dim, classes)

    def add_dora(self, block: str, rank: int, alpha: float, seed: int = 3) -> None:
        """Put DoRA on one block's projection, as its author's fine-tuning does."""
        attention = self.mor_vit[f"block_{block}"].attention
        dora = DoRA(attention["proj"].in_features, rank, alpha, torch.Generator().manual_seed(seed))
        dora.base_layer.load_state_dict(attention["proj"].state_dict())
        dora.settle()
        attention["proj"] = dora.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        embeddings = self.mor_vit["embeddings"]
        x = embeddings.patch_embeddings(images).flatten(2).mT
        x = torch.cat([embeddings.cls_token.expand(len(x), -1, -1), x], 1) + embeddings.position_embeddings
        depth = self.mor_vit["router"].router(x).argmax(-1) + 1
        depth[:, 0] = self.layers
        for s in range(self.layers):
            name = "head" if s == 0 else "tail" if s == self.layers - 1 else "shared"
            change = self.mor_vit[f"block_{name}"](x) - x
            x = x + (s < depth)[..., None] * change
        return self.classifier(self.mor_vit["layernorm"](x)[:, 0])


class MorBlock(nn.Module):
    """Vision-MoR's block: timm's names."""

    def __init__(self, dim: int, heads: int, mlp: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)  # eps 1e-5
        self.attn = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim), "proj": nn.Linear(dim, dim)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, mlp), "fc2": nn.Linear(mlp, dim)})

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.attn["qkv"](self.norm1(x)).chunk(3, -1)
        x = x + self.attn["proj"](attend(q, k, v, self.heads))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class VisionMoR(nn.Module):
    """At each step a router scores all tokens, CLS too; the best int(tokens·factor) run the shared blocks."""

    def __init__(
        self,
        *,
        image: int = 32,
        patch: int = 8,
        dim: int = 16,
        heads: int = 2,
        mlp: int = 24,
        shared: int = 1,
        steps: int = 3,
        classes: int = 10,
    ) -> None:
        super().__init__()
        tokens = (image // patch) ** 2 + 1
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, tokens, dim))
        self.first_block, self.last_block = MorBlock(dim, heads, mlp), MorBlock(dim, heads, mlp)
        self.shared_blocks = nn.ModuleList(
            nn.ModuleDict({"block": MorBlock(dim, heads, mlp)}) for _ in range(shared)
        )
        self.routers = nn.ModuleList(nn.ModuleDict({"router": nn.Linear(dim, 1)}) for _ in range(steps))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)
        self.register_buffer("capacity_factors", torch.tensor([1.0 - i / steps for i in range(steps)]))

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed["proj"](images).flatten(2).mT
        x = torch.cat([self.cls_token.expand(len(patches), -1, -1), patches], 1) + self.pos_embed
        return torch.stack([self.one(image) for image in self.first_block(x)])

    def one(self, x: Tensor) -> Tensor:
        """One image's tokens (tokens, dim) after the first block, to its logits."""
        for router, factor in zip(self.routers, self.capacity_factors, strict=True):
            scores = torch.sigmoid(router["router"](x))[:, 0]
            ranked, count = scores.sort(descending=True).values, max(1, int(len(x) * factor))
            # logits above 17 all score 1.0 in float32: which of them its topk takes is left to chance
            assert count == len(x) or ranked[count - 1] > ranked[count], "choose a smaller router_scale"
            chosen = scores.topk(count).indices.sort().values
            for block in self.shared_blocks:
                x = x.clone()
                x[chosen] = block["block"](x[None, chosen])[0]
        return self.head(self.norm(self.last_block(x[None])[0, 0]))


def wrapped_by_training(model: nn.Module) -> dict[str, object]:
    """What a training script saves: DataParallel's prefix, and an optimizer's state beside the weights."""
    state = OrderedDict((f"module.{name}", tensor) for name, tensor in model.state_dict().items())
    return {"state_dict": state, "optimizer": {"lr": 0.1}, "epoch": 7}
