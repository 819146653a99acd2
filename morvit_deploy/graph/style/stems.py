"""The stem: patch projection by rows or by a convolution, with normalisation and positions folded in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from morvit_deploy.graph.maths.layouts import RowLayout
from morvit_deploy.graph.maths.rewrites import Affine, fold_pixels, fold_positions
from morvit_deploy.graph.style.blocks import StaticLinear
from morvit_deploy.model.reference import MoRViT


class Stem(nn.Module):
    """From an image to tokens: CLS, the patches, and registers if the model has any.

    With `pixels` the image is raw, from 0 to `white`, and `fold` folds its normalisation into the patch projection.
    Otherwise the image is normalised.
    """

    white: float  # value of a white pixel

    def __init__(self, model: MoRViT, layout: RowLayout, *, pixels: bool, fold: bool, single: bool) -> None:
        super().__init__()
        conv, config = model.patch_embed.proj, model.config
        self.config, self.layout, self.single = config, layout, single
        self.pixels, self.folded, self.normalises = pixels, pixels and fold, pixels and not fold
        assert conv.bias is not None
        patch = Affine(conv.weight.double().permute(2, 3, 1, 0).flatten(0, 2), conv.bias.double())
        if self.folded:
            patch = fold_pixels(patch, config.preprocess.mean, config.preprocess.std, self.white)
        assert patch.bias is not None
        dtype = conv.weight.dtype
        self._set_projection(patch.weight, dtype)
        cls, positions = fold_positions(model.cls_token.double(), model.pos_embed.double(), patch.bias)
        self.cls, self.positions = self._tokens(cls, dtype), self._tokens(positions, dtype)
        if config.register_tokens:
            self.registers = self._tokens(model.register_tokens, dtype)

    def example(self, batch: int) -> Tensor:
        """Return zeros of the stem's input shape and type, for tracing."""
        size = self.config.image_size
        return torch.zeros(batch, 3, size, size)

    def forward(self, image: Tensor) -> Tensor:
        image = image.to(self.cls.dtype)  # first, since TensorRT supports uint8 only as the input of a cast
        x = self._project(image).to(self.cls.dtype) + self.positions
        parts = [self._repeated(self.cls, image), x]
        if self.config.register_tokens:
            parts.append(self._repeated(self.registers, image))
        return self.layout.join(parts)

    def _set_projection(self, weight: Tensor, dtype: torch.dtype) -> None:
        """Store the patch projection's weight (row · column · channel, dim)."""
        raise NotImplementedError

    def _project(self, image: Tensor) -> Tensor:
        """Project the patches of the image to states without positions."""
        raise NotImplementedError

    def _tokens(self, states: Tensor, dtype: torch.dtype) -> nn.Parameter:
        """Return constant states (1, n, dim) in the graph's layout."""
        return _constant(self.layout.constant(states[0]) if self.single else states, dtype)

    def _repeated(self, constant: Tensor, image: Tensor) -> Tensor:
        """Repeat constant states for each image of a batch."""
        return constant if self.single else constant.expand(image.shape[0], -1, -1)

    def _normalise(self, x: Tensor, shaped: Callable[[Tensor], Tensor]) -> Tensor:
        """Normalise raw pixels; `shaped` broadcasts one value per channel over x."""
        preprocess = self.config.preprocess
        mean, std = (shaped(x.new_tensor(values)) for values in (preprocess.mean, preprocess.std))
        return (x / self.white - mean) / std


class RowStem(Stem):
    """A stem for raw pixels (batch, height, width, 3) or images (batch, 3, height, width), in layout bsd.

    Patches are rows, and the projection is a matrix product.
    """

    white = 255.0

    def example(self, batch: int) -> Tensor:
        size = self.config.image_size
        return torch.zeros(batch, size, size, 3, dtype=torch.uint8) if self.pixels else super().example(batch)

    def _set_projection(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.patch = StaticLinear(Affine(weight, None), dtype)
        # scale and offset of raw pixels, which `lowering` sets below fp32
        self.shrink, self.centre = 1.0, 0.0

    def _project(self, image: Tensor) -> Tensor:
        x = self._rows(image[0] if self.single else image)
        if self.normalises:
            x = self._normalise(x, lambda values: values.repeat(x.shape[-1] // 3))
        x = x if self.shrink == 1 else x * self.shrink
        x = x if self.centre == 0 else x - self.centre
        projected: Tensor = self.patch(x)
        return projected

    def _rows(self, image: Tensor) -> Tensor:
        """Reshape an image to one row (row, column, channel) per patch: (…, N, patch² · 3)."""
        grid, patch = self.config.image_size // self.config.patch_size, self.config.patch_size
        if self.pixels:
            columns = torch.unflatten(image, -2, (grid, patch))
            cut = torch.unflatten(columns, -4, (grid, patch))
        else:  # move channels last
            columns = torch.unflatten(image, -1, (grid, patch))
            cut = torch.unflatten(columns, -3, (grid, patch)).movedim(-5, -1)
        return cut.transpose(-4, -3).flatten(-3).flatten(-3, -2)


class ConvStem(Stem):
    """A stem for images (1, 3, height, width) that projects patches by a strided convolution, in either layout.

    Raw pixels are p / 256, as a Core ML ImageType scales them: by an exact power of two.
    """

    white = 255 / 256

    def _set_projection(self, weight: Tensor, dtype: torch.dtype) -> None:
        size = self.config.patch_size
        kernel = torch.unflatten(weight, 0, (size, size, -1))
        self.weight = _constant(kernel.permute(3, 2, 0, 1), dtype)  # (dim, channel, row, column)

    def _project(self, image: Tensor) -> Tensor:
        if self.normalises:
            image = self._normalise(image, lambda values: values[:, None, None])
        patches = F.conv2d(image, self.weight, stride=self.config.patch_size)
        return self.layout.from_channels(patches.flatten(2))  # of (1, dim, N)


def _constant(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)
