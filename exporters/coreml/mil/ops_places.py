"""Operations that move, cut and join values, take them by index, or return indices.

Equal values rank by index, the lower first. Core ML does not guarantee that order, so a comparison with it must allow
for ties.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.ops import Bools, Ints, Labels, Tensors


def reshape(x: Tensor, shape: Ints) -> Tensor:
    """0 keeps the size of that axis, -1 takes what is left."""
    if 0 in shape and len(shape) != x.ndim:
        raise ValueError(f"shape {shape} keeps sizes of an input of {x.ndim} axes")
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


def transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """`axes` are those of the result."""
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def tile(x: Tensor, reps: Ints) -> Tensor:
    return x.repeat(reps)


def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """`interleave` takes one slice of each in turn."""
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> Tensors:
    if split_sizes is None:
        if num_splits is None or x.shape[axis] % num_splits:
            raise ValueError(f"cannot split {x.shape[axis]} into {num_splits} equal parts")
        split_sizes = (x.shape[axis] // num_splits,) * num_splits
    return torch.split(x, list(split_sizes), axis)


def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """x[begin:end:stride] on every axis as Python slices; masks drop an end, or select a single index."""
    no = (False,) * x.ndim
    no_begin, no_end, alone = begin_mask or no, end_mask or no, squeeze_mask or no
    steps = stride or (1,) * x.ndim
    for axis in reversed(range(x.ndim)):
        if alone[axis]:
            x = x.select(axis, begin[axis])
            continue
        first = None if no_begin[axis] else begin[axis]
        last = None if no_end[axis] else end[axis]
        chosen = range(x.shape[axis])[first : last : steps[axis]]
        if chosen.step > 0:
            x = x[(slice(None),) * axis + (slice(chosen.start, chosen.stop, chosen.step),)]
        else:
            x = x.index_select(axis, torch.tensor(list(chosen), dtype=torch.int64))
    return x


def gather(
    x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Slices of x along `axis`; the first `batch_dims` axes of both are shared.

    Indices are always checked, whatever `validate_indices`.
    """
    axis %= x.ndim
    size = x.shape[axis]
    batch = math.prod(x.shape[:batch_dims])
    before, after = math.prod(x.shape[batch_dims:axis]), math.prod(x.shape[axis + 1 :])
    flat = _in_range(indices, size).reshape(batch, 1, -1, 1)
    wide = flat.expand(batch, before, flat.shape[2], after)
    taken = x.reshape(batch, before, size, after).gather(2, wide)
    return taken.reshape(*x.shape[:axis], *indices.shape[batch_dims:], *x.shape[axis + 1 :])


def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> Tensor | Tensors:
    """The first k of a stable sort, with or without indices; without `sort` any order is allowed.

    The package declares the type of the indices.
    """
    values, indices = torch.sort(x, dim=axis, descending=not ascending, stable=True)
    first = values.narrow(axis, 0, k)
    return (first, indices.narrow(axis, 0, k)) if return_indices else first


def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return torch.argsort(x, dim=axis, descending=not ascending, stable=True)


def argmax(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmax(x, axis, keep_dims)


def argmin(x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32") -> Tensor:
    return torch.argmin(x, axis, keep_dims)


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
