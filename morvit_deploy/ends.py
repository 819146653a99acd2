"""What stands before and after the blocks of a static graph: the stem, the routers, the classifier."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.blocks import StaticLinear, StaticNorm, affine_of
from morvit_deploy.model import MoRViT, Router
from morvit_deploy.rewrites import Affine, fold_pixels, fold_positions


@dataclass(frozen=True)
class Options:
    """What the caller may choose about the graph; none of it changes the logits.

    `cls_only`, `frozen_keys` and `fold` are rewrites 3 to 5: off only to measure what each is worth.
    """

    input: str = (
        "uint8"  # "uint8": (batch, height, width, 3) pixels; "float": (batch, 3, height, width) normalised
    )
    with_depth: bool = False
    single: bool = True  # for one image: the graph has no batch axis inside
    cls_only: bool = True
    frozen_keys: bool = True
    fold: bool = True


DEFAULTS = Options()


class Stem(nn.Module):
    """Image to tokens (…, N+1, dim), CLS first; normalisation is folded into the patch projection.

    Registers, where there are some, stand behind the patches.
    """

    def __init__(self, model: MoRViT, options: Options) -> None:
        super().__init__()
        conv, config = model.patch_embed.proj, model.config
        self.config, self.options = config, options
        dtype = conv.weight.dtype
        weight = conv.weight.double().permute(2, 3, 1, 0).flatten(0, 2)  # (row, column, channel), dim
        assert conv.bias is not None
        patch = Affine(weight, conv.bias.double())
        if options.fold and options.input == "uint8":
            patch = fold_pixels(patch, config.preprocess.mean, config.preprocess.std)
        assert patch.bias is not None
        self.patch = StaticLinear(Affine(patch.weight, None), dtype)
        cls, positions = fold_positions(model.cls_token.double(), model.pos_embed.double(), patch.bias)
        if options.single:
            cls, positions = cls[0], positions[0]
        # of raw pixels, taken into the patch's constants below fp32: see `lowering`
        self.shrink, self.centre = 1.0, 0.0
        self.cls = nn.Parameter(cls.to(dtype), requires_grad=False)
        self.positions = nn.Parameter(positions.to(dtype), requires_grad=False)
        if config.register_tokens:
            registers = model.register_tokens[0] if options.single else model.register_tokens
            self.registers = nn.Parameter(registers.to(dtype), requires_grad=False)

    def forward(self, image: Tensor) -> Tensor:
        image = image.to(self.cls.dtype)  # first of all: TensorRT takes uint8 only as far as a cast
        image = image[0] if self.options.single else image
        x = self._patches(image)
        if self.options.input == "uint8" and not self.options.fold:
            x = self._normalise(x)
        x = x if self.shrink == 1 else x * self.shrink
        x = x if self.centre == 0 else x - self.centre
        x = self.patch(x).to(self.cls.dtype) + self.positions
        parts = [self._repeated(self.cls, image), x]
        if self.config.register_tokens:
            parts.append(self._repeated(self.registers, image))
        return torch.cat(parts, dim=-2)

    def _repeated(self, constant: Tensor, image: Tensor) -> Tensor:
        """A constant (n, dim), or (1, n, dim) for each image of a batch."""
        return constant if self.options.single else constant.expand(image.shape[0], -1, -1)

    def _patches(self, image: Tensor) -> Tensor:
        """Each patch as a row of (row, column, channel): (…, N, patch² · 3)."""
        grid, patch = self.config.image_size // self.config.patch_size, self.config.patch_size
        if self.options.input == "uint8":
            cut = image.unflatten(-2, (grid, patch)).unflatten(-4, (grid, patch)).transpose(-4, -3)
        else:  # channels go last
            cut = (
                image.unflatten(-1, (grid, patch))
                .unflatten(-3, (grid, patch))
                .movedim(-5, -1)
                .transpose(-4, -3)
            )
        return cut.flatten(-3).flatten(-3, -2)

    def _normalise(self, pixels: Tensor) -> Tensor:
        repeats = pixels.shape[-1] // 3
        mean = pixels.new_tensor(self.config.preprocess.mean).repeat(repeats)
        std = pixels.new_tensor(self.config.preprocess.std).repeat(repeats)
        return (pixels / 255 - mean) / std


class StaticRouter(nn.Module):
    """A router's linear layers in the static layout."""

    def __init__(self, router: Router) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            StaticLinear(affine_of(layer, None), layer.weight.dtype) for layer in router.linears()
        )

    def forward(self, x: Tensor) -> Tensor:
        for j, layer in enumerate(self.layers):
            if j:
                x = F.gelu(x) if j == 1 else F.relu(x)
            x = layer(x)
        return x


class Classifier(nn.Module):
    """LayerNorm and head on CLS (…, dim)."""

    def __init__(self, model: MoRViT, options: Options) -> None:
        super().__init__()
        layers = model.head_layers()
        affines = [
            affine_of(layer, model.norm if options.fold and j == 0 else None)
            for j, layer in enumerate(layers)
        ]
        self.norm = StaticNorm(model.norm, options.fold)
        self.head = nn.ModuleList(StaticLinear(affine, layers[0].weight.dtype) for affine in affines)

    def forward(self, cls: Tensor) -> Tensor:
        x = self.norm(cls)
        for j, layer in enumerate(self.head):
            x = layer(torch.tanh(x) if j else x)
        return x.to(cls.dtype)
