"""Operations with sums: products, convolution, attention, norms, reductions.

Each is computed in float32 from end to end; only its answer is rounded to the package's type.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.ops import Ints, Tensors, operation, require_floats

_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


@operation("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


@operation("matmul")
def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


@operation("einsum")
def einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


@operation("conv")
def conv(
    x: Tensor,  # (batch, channels, *sizes)
    weight: Tensor,  # (out channels, channels / groups, *kernel)
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    ones = (1,) * (x.ndim - 2)
    strides, dilations = strides or ones, dilations or ones
    sizes = zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True)
    if pad_type == "custom":
        pairs = list(zip((pad or ())[::2], (pad or ())[1::2], strict=True))
    elif pad_type in ("same", "same_lower"):
        pairs = [_same(*of_axis, lower=pad_type == "same_lower") for of_axis in sizes]
    elif pad_type == "valid":
        pairs = []
    else:
        raise NotImplementedError(f"pad_type {pad_type!r}")
    if any(size for pair in pairs for size in pair):
        x = F.pad(x, [size for pair in reversed(pairs) for size in pair])  # torch begins with the last axis
    return _CONVOLUTIONS[x.ndim](x, weight, bias, strides, 0, dilations, groups)


def _same(size: int, kernel: int, stride: int, dilation: int, lower: bool) -> tuple[int, int]:
    """Zeros before and after, so that the answer has ceil(size / stride); an odd one goes after unless `lower`."""
    total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
    less, more = total // 2, total - total // 2
    return (more, less) if lower else (less, more)


@operation("scaled_dot_product_attention")
def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(Q Kᵀ / √E + mask) V; a mask of booleans lets pass where it is true."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_bool else scores + attn_mask
    return torch.softmax(scores, -1) @ value


@operation("softmax")
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


@operation("layer_norm")
def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Over any axes; gamma and beta have the sizes of those axes."""
    over = sorted(axis % x.ndim for axis in (range(x.ndim) if axes is None else axes))
    variance, mean = torch.var_mean(x, over, correction=0, keepdim=True)
    normal = (x - mean) / torch.sqrt(variance + epsilon)
    sizes = [size if axis in over else 1 for axis, size in enumerate(x.shape)]
    scaled = normal if gamma is None else normal * gamma.reshape(sizes)
    return scaled if beta is None else scaled + beta.reshape(sizes)


def _reduction(
    function: Callable[[Tensor, list[int], bool], Tensor], floats_alone: bool = False
) -> Callable[..., Tensor]:
    def evaluate(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
        if floats_alone:
            require_floats(x)
        return function(x, list(range(x.ndim) if axes is None else axes), keep_dims)

    return evaluate


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = torch.prod(x, axis, keep)
    return x


operation("reduce_sum")(_reduction(torch.sum))
operation("reduce_max")(_reduction(torch.amax))
operation("reduce_min")(_reduction(torch.amin))
operation("reduce_prod")(_reduction(_product))
operation("reduce_mean")(_reduction(torch.mean, floats_alone=True))
operation("reduce_sum_square")(_reduction(lambda x, axes, keep: torch.sum(x * x, axes, keep)))
operation("reduce_l2_norm")(
    _reduction(lambda x, axes, keep: torch.sqrt(torch.sum(x * x, axes, keep)), floats_alone=True)
)
operation("reduce_log_sum_exp")(_reduction(torch.logsumexp, floats_alone=True))


@operation("cumsum")
def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    """`exclusive` leaves each element out of its own sum; `reverse` sums from the end."""
    turned = x.flip(axis) if reverse else x
    total = torch.cumsum(turned, axis)
    if exclusive:
        total = total - turned
    return total.flip(axis) if reverse else total
