"""The routers, the predictors and the classifier of a static graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.graph.maths.layouts import RowLayout
from morvit_deploy.graph.maths.rewrites import Affine
from morvit_deploy.graph.style.blocks import StaticBlock, StaticLinear, affine_of, columns
from morvit_deploy.model.choices import Output
from morvit_deploy.model.layers import Predictor, Router
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


class StaticPredictor(nn.Module):
    """DynamicViT's predictor on the patch tokens, with the norm and the linear layers of `block`.

    A token's half and the half that all share have weights of their own, so that the shared half is multiplied once;
    the two outputs are folded into their difference.
    """

    def __init__(
        self, predictor: Predictor, layout: RowLayout, block: type[StaticBlock], *, fold: bool
    ) -> None:
        super().__init__()
        self.axis = layout.axis
        embed = affine_of(predictor.embed, predictor.norm if fold else None)
        mixing, *layers, deciding = (affine_of(layer, None) for layer in predictor.linears())
        half, dtype = embed.weight.shape[0] // 2, predictor.embed.weight.dtype
        assert deciding.bias is not None
        margin = Affine(
            deciding.weight[:, :1] - deciding.weight[:, 1:], deciding.bias[:1] - deciding.bias[1:]
        )
        self.norm = block.norm(predictor.norm, fold)
        self.own = block.linear(columns(embed, 0, half), dtype)
        self.shared = block.linear(columns(embed, half, embed.weight.shape[1]), dtype)
        self.own_mixed = block.linear(Affine(mixing.weight[:half], None), dtype)
        self.shared_mixed = block.linear(Affine(mixing.weight[half:], mixing.bias), dtype)
        self.layers = nn.ModuleList(block.linear(affine, dtype) for affine in (*layers, margin))

    def forward(self, x: Tensor, among: Tensor | None = None) -> Tensor:
        """Map states of patch tokens to logits, one for each; the mean is over all, or `among` (0 or 1) some."""
        x = self.norm(x)
        shared = F.gelu(self.shared(x))
        if among is None:
            shared = shared.mean(dim=self.axis, keepdim=True)
        else:
            shared = (shared * among).sum(dim=self.axis, keepdim=True) / among.sum(
                dim=self.axis, keepdim=True
            )
        x = self.own_mixed(F.gelu(self.own(x))) + self.shared_mixed(shared)
        for layer in self.layers:
            x = layer(F.gelu(x))
        return x


class Classifier(nn.Module):
    """LayerNorm, pooling and, for logits, the head, with the norm and the linear layers of `block`.

    The scale and shift of the norm fold into the head also where the mean is taken between the two: a mean of
    scaled and shifted states is the scaled and shifted mean.
    """

    def __init__(
        self,
        model: MoRViT,
        block: type[StaticBlock],
        layout: RowLayout,
        *,
        fold: bool,
        output: Output = "logits",
    ) -> None:
        super().__init__()
        self.output, fold = output, fold and output == "logits"  # without a head, nothing follows the norm
        self.pooling, self.layout = model.config.pooling, layout
        config = model.config
        self.front, self.patches, self.registers = config.front, config.num_patches, config.register_tokens
        layers = model.head_layers() if output == "logits" else []
        affines = [
            affine_of(layer, model.norm if fold and j == 0 else None) for j, layer in enumerate(layers)
        ]
        self.norm = block.norm(model.norm, fold)
        self.head = nn.ModuleList(block.linear(affine, model.norm.weight.dtype) for affine in affines)

    def forward(self, h: Tensor) -> Tensor:
        """Map final states (…, tokens, dim) to the output.

        CLS is first, if there is one; then the patches in any order, then registers. For the output tokens h are the
        patches alone, in their own order.
        """
        if self.output == "tokens":
            return h if self.pooling == "mean_norm" else self.norm(h)
        x = self._pooled(h)
        for j, layer in enumerate(self.head):
            x = layer(torch.tanh(x) if j else x)
        return x.to(h.dtype)

    def _pooled(self, h: Tensor) -> Tensor:
        """Return the normalised vector that the head reads."""
        if self.pooling == "cls":
            pooled: Tensor = self.norm(self.layout.cls(h))
            return pooled
        patches = self.layout.beyond(h, self.front) if self.front else h
        if self.registers:
            patches = self.layout.first(patches, self.patches)
        if self.pooling == "mean_norm":
            pooled = self.norm(self.layout.mean(patches))
            return pooled
        return self.layout.mean(self.norm(patches))
