"""What stands before and after the blocks of a static graph: the stem, the routers, the classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.graph.maths.layouts import LAYOUTS
from morvit_deploy.graph.maths.rewrites import Affine, fold_pixels, fold_positions
from morvit_deploy.graph.style.blocks import StaticLinear, affine_of
from morvit_deploy.graph.style.channels_first import PARTS
from morvit_deploy.graph.style.options import DEFAULTS, Options
from morvit_deploy.model.reference import MoRViT, Router

__all__ = ["DEFAULTS", "Classifier", "ConvStem", "Options", "StaticRouter", "Stem"]


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


WHITE = 255 / 256  # of an image as an app hands it over: pixels by an exact power of two


class ConvStem(nn.Module):
    """The same for one image (1, 3, height, width), with a convolution that steps from patch to patch."""

    def __init__(self, model: MoRViT, options: Options) -> None:
        super().__init__()
        conv, config = model.patch_embed.proj, model.config
        self.config, self.options, self.layout = config, options, LAYOUTS[options.layout]
        assert conv.bias is not None
        patch = Affine(conv.weight.double().permute(2, 3, 1, 0).flatten(0, 2), conv.bias.double())
        if options.fold and options.input == "image":
            patch = fold_pixels(patch, config.preprocess.mean, config.preprocess.std, WHITE)
        assert patch.bias is not None
        size = config.patch_size
        weight = patch.weight.unflatten(0, (size, size, -1)).permute(
            3, 2, 0, 1
        )  # (dim, channel, row, column)
        self.weight = _constant(weight, conv.weight.dtype)
        cls, positions = fold_positions(model.cls_token.double(), model.pos_embed.double(), patch.bias)
        self.cls = _constant(self.layout.constant(cls[0]), conv.weight.dtype)
        self.positions = _constant(self.layout.constant(positions[0]), conv.weight.dtype)
        if config.register_tokens:
            registers = self.layout.constant(model.register_tokens[0])
            self.registers = _constant(registers, conv.weight.dtype)

    def forward(self, image: Tensor) -> Tensor:
        image = image.to(self.weight.dtype)
        if self.options.input == "image" and not self.options.fold:
            image = self._normalise(image)
        patches = F.conv2d(image, self.weight, stride=self.config.patch_size).flatten(2)  # (1, dim, N)
        x = patches[:, :, None] if self.options.layout == "bc1s" else patches[0].T
        parts = [self.cls, x + self.positions]
        return self.layout.join([*parts, self.registers] if self.config.register_tokens else parts)

    def _normalise(self, image: Tensor) -> Tensor:
        mean = image.new_tensor(self.config.preprocess.mean)[:, None, None]
        std = image.new_tensor(self.config.preprocess.std)[:, None, None]
        return (image / WHITE - mean) / std


def _constant(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)


class StaticRouter(nn.Module):
    """A router's linear layers in the static layout."""

    def __init__(self, router: Router, options: Options) -> None:
        super().__init__()
        linear = PARTS[options.layout].linear
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
    """LayerNorm and head on CLS, as the layout hands it over."""

    def __init__(self, model: MoRViT, options: Options) -> None:
        super().__init__()
        layers = model.head_layers()
        affines = [
            affine_of(layer, model.norm if options.fold and j == 0 else None)
            for j, layer in enumerate(layers)
        ]
        parts = PARTS[options.layout]
        self.norm = parts.norm(model.norm, options.fold)
        self.head = nn.ModuleList(parts.linear(affine, layers[0].weight.dtype) for affine in affines)

    def forward(self, cls: Tensor) -> Tensor:
        x = self.norm(cls)
        for j, layer in enumerate(self.head):
            x = layer(torch.tanh(x) if j else x)
        return x.to(cls.dtype)
