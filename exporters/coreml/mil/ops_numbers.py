"""Operations that compute: arithmetic, comparison, activations, casts, products, norms, sums.

Each computes in float32, or in float64 if it is given that; only its result is rounded to the package's type.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.ops import Ints, Tensors

_CONVOLUTIONS: dict[int, Callable[..., Tensor]] = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def of_one(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """An operation of one tensor, by MIL's name for it."""

    def evaluate(x: Tensor) -> Tensor:
        return function(x)

    return evaluate


def of_two(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """An operation of two tensors, by MIL's names for them."""

    def evaluate(x: Tensor, y: Tensor) -> Tensor:
        return function(x, y)

    return evaluate


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return torch.rsqrt(x + epsilon)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return torch.log(x + epsilon)


def fill_like(ref_tensor: Tensor, value: Tensor | float = 0.0) -> Tensor:
    return torch.full_like(ref_tensor, float(value))


def gelu(x: Tensor, mode: str = "EXACT") -> Tensor:
    """By the error function, by tanh, or by the logistic function of 1.702 x."""
    if mode == "SIGMOID_APPROXIMATION":
        return x * torch.sigmoid(1.702 * x)
    if mode not in ("EXACT", "TANH_APPROXIMATION"):
        raise NotImplementedError(f"mode {mode!r}")
    return F.gelu(x, approximate="none" if mode == "EXACT" else "tanh")


def select(cond: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(cond, a, b)


def cast(x: Tensor, dtype: str) -> Tensor:
    """Truncate floats and clamp them to the integer type, as ARM does; integers wrap around.

    Rounding to fp16 and wrapping are applied to every result elsewhere.
    """
    if dtype in ("fp16", "fp32"):
        return x if x.is_floating_point() else x.to(torch.float32)
    if dtype == "bool":
        return x != 0
    bits = int(dtype.lstrip("uint"))
    lowest, highest = (0, 2**bits - 1) if dtype.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    if x.is_floating_point():
        # float64 holds the ends of int32 exactly, float32 does not
        x = x.to(torch.float64).nan_to_num(0.0, math.inf, -math.inf).clamp(lowest, highest)
    return x.to(torch.int64)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.linear(x, weight, bias)


def matmul(x: Tensor, y: Tensor, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    return (x.mT if transpose_x else x) @ (y.mT if transpose_y else y)


def einsum(values: Tensors, equation: str) -> Tensor:
    return torch.einsum(equation, *values)


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
    """Zeros before and after, so that the result has ceil(size / stride); an odd one goes after unless `lower`."""
    total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
    less, more = total // 2, total - total // 2
    return (more, less) if lower else (less, more)


def attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    """softmax(Q Kᵀ / √E + mask) V; a boolean mask keeps scores where it is true."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    if attn_mask is not None:
        is_bool = attn_mask.dtype == torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_bool else scores + attn_mask
    return torch.softmax(scores, -1) @ value


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    return torch.softmax(x, axis)


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


def reduction(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """An operation over some axes, or over all of them, of a function (tensor, axes, keep the axes)."""

    def evaluate(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
        return function(x, list(range(x.ndim) if axes is None else axes), keep_dims)

    return evaluate
