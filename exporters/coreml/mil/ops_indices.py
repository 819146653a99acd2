"""Operations that read by index or answer indices. Equal values rank by their place: the lower index comes first.

Core ML does not promise that order. A comparison with it must allow for ties.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.ops import Labels, Tensors, operation


@operation("gather", moves=True)
def gather(
    x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Slices of x along `axis`; the first `batch_dims` axes of both are one and the same.

    `validate_indices` asks the device to check them; here they are checked always.
    """
    axis %= x.ndim
    size = x.shape[axis]
    batch = math.prod(x.shape[:batch_dims])
    before, after = math.prod(x.shape[batch_dims:axis]), math.prod(x.shape[axis + 1 :])
    flat = _in_range(indices, size).reshape(batch, 1, -1, 1)
    wide = flat.expand(batch, before, flat.shape[2], after)
    taken = x.reshape(batch, before, size, after).gather(2, wide)
    return taken.reshape(*x.shape[:axis], *indices.shape[batch_dims:], *x.shape[axis + 1 :])


@operation("gather_along_axis", moves=True)
def gather_along_axis(x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False) -> Tensor:
    """x[…, indices[…, i, …], …], element by element."""
    return x.gather(axis, _in_range(indices, x.shape[axis]))


@operation("gather_nd", moves=True)
def gather_nd(x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False) -> Tensor:
    """The last axis of `indices` holds one index for each of as many axes of x, after the batch's."""
    depth = indices.shape[-1]
    sizes = x.shape[batch_dims : batch_dims + depth]
    batch = math.prod(x.shape[:batch_dims])
    flat = x.reshape(batch, *x.shape[batch_dims:])
    of_axis = [_in_range(indices[..., at], size).reshape(batch, -1) for at, size in enumerate(sizes)]
    places = (torch.arange(batch).unsqueeze(1), *of_axis)
    taken = flat[places]
    return taken.reshape(*indices.shape[:-1], *x.shape[batch_dims + depth :])


@operation("topk")
def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | Tensors:
    """The k first of a stable sort, with or without their indices; without `sort` any order is right, so is this one.

    The type of the indices is the one that the package declares for the answer.
    """
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    first = values.narrow(axis, 0, k)
    return (first, indices.narrow(axis, 0, k)) if return_indices else first


@operation("argsort")
def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True)


@operation("reduce_argmax")
def argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmax(x, axis, keep_dims)


@operation("reduce_argmin")
def argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmin(x, axis, keep_dims)


@operation("classify")
def classify(probabilities: Tensor, classes: Labels) -> tuple[str | int, Tensor]:
    """The label of the highest probability, and the probabilities in the order of the labels."""
    flat = probabilities.reshape(-1)
    if len(flat) != len(classes):
        raise ValueError(f"{len(flat)} probabilities of {len(classes)} classes")
    return classes[int(torch.argmax(flat))], flat


def _in_range(indices: Tensor, size: int) -> Tensor:
    """Negative indices count from the end; ValueError for one that is outside."""
    if indices.numel() and not (-size <= int(indices.min()) and int(indices.max()) < size):
        raise ValueError(f"indices from {int(indices.min())} to {int(indices.max())} of an axis of {size}")
    return torch.where(indices < 0, indices + size, indices)
