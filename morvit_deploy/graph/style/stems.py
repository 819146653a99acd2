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
        cls = model.cls_token.double() if config.cls_token else None
        cls, positions = fold_positions(cls, model.pos_embed.double(), patch.bias)
        self.positions = self._tokens(positions, dtype)
        if cls is not None:
            self.cls = self._tokens(cls, dtype)
        if config.register_tokens:
            self.registers = self._tokens(model.register_tokens, dtype)

    def example(self, batch: int) -> Tensor:
        """Return zeros of the stem's input shape and type, for tracing."""
        return torch.zeros(batch, self.config.in_channels, *self.config.image_shape)

    def forward(self, image: Tensor) -> Tensor:
        dtype = self.positions.dtype
        image = image.to(dtype)  # first, since TensorRT supports uint8 only as the input of a cast
        parts = [self._project(image).to(dtype) + self.positions]
        if self.config.cls_token:
            parts.insert(0, self._repeated(self.cls, image))
        if self.config.register_tokens:
            parts.append(self._repeated(self.registers, image))
        return self.layout.join(parts) if len(parts) > 1 else parts[0]

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
    """A stem for raw pixels (batch, height, width, channels) or images (batch, channels, height, width), layout bsd.

    Patches are rows, and the projection is a matrix product. Patches that overlap are laid side by side first.
    """

    white = 255.0

    def example(self, batch: int) -> Tensor:
        if not self.pixels:
            return super().example(batch)
        return torch.zeros(batch, *self.config.image_shape, self.config.in_channels, dtype=torch.uint8)

    def _set_projection(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.patch = StaticLinear(Affine(weight, None), dtype)
        # scale and offset of raw pixels, which `lowering` sets below fp32
        self.shrink, self.centre = 1.0, 0.0

    def _project(self, image: Tensor) -> Tensor:
        x = self._rows(image[0] if self.single else image)
        if self.normalises:
            x = self._normalise(x, lambda values: values.repeat(x.shape[-1] // len(values)))
        x = x if self.shrink == 1 else x * self.shrink
        x = x if self.centre == 0 else x - self.centre
        projected: Tensor = self.patch(x)
        return projected

    def _rows(self, image: Tensor) -> Tensor:
        """Reshape an image to one row (row, column, channel) per patch: (…, N, patch² · channels)."""
        (high, wide), patch = self.config.grid, self.config.patch_size
        if self.config.patch_stride is not None:
            image = self._side_by_side(image, self.config.patch_stride)
        if self.pixels:
            columns = torch.unflatten(image, -2, (wide, patch))
            cut = torch.unflatten(columns, -4, (high, patch))
        else:  # move channels last
            columns = torch.unflatten(image, -1, (wide, patch))
            cut = torch.unflatten(columns, -3, (high, patch)).movedim(-5, -1)
        return cut.transpose(-4, -3).flatten(-3).flatten(-3, -2)

    def _side_by_side(self, image: Tensor, stride: int) -> Tensor:
        """Repeat the rows and columns of pixels that overlapping patches share: one gather for each axis."""
        for axis, count in zip((-3, -2) if self.pixels else (-2, -1), self.config.grid, strict=True):
            places = torch.arange(count)[:, None] * stride + torch.arange(self.config.patch_size)
            image = image.index_select(axis, places.flatten())
        return image


class ConvStem(Stem):
    """A stem for images (1, channels, height, width), in either layout: patches are projected by a convolution.

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
        patches = F.conv2d(image, self.weight, stride=self.config.patch_stride or self.config.patch_size)
        return self.layout.from_channels(patches.flatten(2))  # of (1, dim, N)


def _constant(value: Tensor, dtype: torch.dtype) -> nn.Parameter:
    return nn.Parameter(value.to(dtype).contiguous(), requires_grad=False)
