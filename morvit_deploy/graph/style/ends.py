"""The routers and the classifier of a static graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.graph.style.blocks import StaticBlock, StaticLinear, affine_of
from morvit_deploy.model.layers import Router
from morvit_deploy.model.reference import MoRViT


class StaticRouter(nn.Module):
    """A router, with linear layers of type `linear`."""

    def __init__(self, router: Router, linear: type[StaticLinear]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            linear(affine_of(layer, None), layer.weight.dtype) for layer in router.linears()
        )

    def forward(self, x: Tensor) -> Tensor:
        for j, layer in enumerate(self.layers):
            if j:
                x = F.gelu(x) if j == 1 else F.relu(x)
            x = layer(x)
        return x


class Classifier(nn.Module):
    """LayerNorm and head on the state of CLS, with the norm and the linear layers of `block`."""

    def __init__(self, model: MoRViT, block: type[StaticBlock], *, fold: bool) -> None:
        super().__init__()
        layers = model.head_layers()
        affines = [
            affine_of(layer, model.norm if fold and j == 0 else None) for j, layer in enumerate(layers)
        ]
        self.norm = block.norm(model.norm, fold)
        self.head = nn.ModuleList(block.linear(affine, layers[0].weight.dtype) for affine in affines)

    def forward(self, cls: Tensor) -> Tensor:
        x: Tensor = self.norm(cls)
        for j, layer in enumerate(self.head):
            x = layer(torch.tanh(x) if j else x)
        return x.to(cls.dtype)
