"""Operations that move, cut, join and make values, and change none."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.ops import Bools, Ints, Tensors, operation


@operation("reshape", moves=True)
def reshape(x: Tensor, shape: Ints) -> Tensor:
    """0 keeps the size of that axis, -1 takes what is left."""
    if 0 in shape and len(shape) != x.ndim:
        raise ValueError(f"shape {shape} keeps sizes of an input of {x.ndim} axes")
    return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(shape)])


@operation("transpose", moves=True)
def transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(perm)


@operation("squeeze", moves=True)
def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Without `axes` every axis of size 1; an axis of another size stays."""
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


@operation("expand_dims", moves=True)
def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    """`axes` are those of the answer."""
    for axis in sorted(axis % (x.ndim + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


@operation("tile", moves=True)
def tile(x: Tensor, reps: Ints) -> Tensor:
    return x.repeat(reps)


@operation("concat", moves=True)
def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    """`interleave` takes one slice of each in turn."""
    if not interleave:
        return torch.cat(values, axis)
    axis %= values[0].ndim
    return torch.stack(values, axis + 1).flatten(axis, axis + 1)


@operation("stack", moves=True)
def stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(values, axis)


@operation("split", moves=True)
def split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None) -> Tensors:
    if split_sizes is None:
        if num_splits is None or x.shape[axis] % num_splits:
            raise ValueError(f"cannot split {x.shape[axis]} into {num_splits} equal parts")
        split_sizes = (x.shape[axis] // num_splits,) * num_splits
    return torch.split(x, list(split_sizes), axis)


@operation("slice_by_index", moves=True)
def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """x[begin:end:stride] on every axis as Python slices; a mask takes an end off, or one index alone."""
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


@operation("slice_by_size", moves=True)
def slice_by_size(x: Tensor, begin: Tensor, size: Ints) -> Tensor:
    """-1 takes the rest of an axis; `begin` may be computed."""
    for axis, (first, length) in enumerate(zip(begin.tolist(), size, strict=True)):
        first = first % x.shape[axis] if first < 0 else first
        x = x.narrow(axis, first, x.shape[axis] - first if length == -1 else length)
    return x


@operation("range_1d")
def range_1d(end: Tensor, start: Tensor, step: Tensor) -> Tensor:
    """start, start + step, … below end."""
    first, last, stride = start.item(), end.item(), step.item()
    count = max(0, math.ceil((last - first) / stride))
    return first + stride * torch.arange(count, dtype=start.dtype)


@operation("fill")
def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    return torch.zeros(shape) if value is None else value.reshape(()).expand(shape)


@operation("fill_like")
def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return fill(tuple(ref_tensor.shape), value)


@operation("one_hot")
def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """`on_value` at each index along a new axis, `off_value` elsewhere."""
    axis %= indices.ndim + 1
    places = [1] * (indices.ndim + 1)
    places[axis] = -1
    hot = indices.unsqueeze(axis) == torch.arange(one_hot_vector_size).reshape(places)
    on = torch.tensor(1) if on_value is None else on_value.reshape(())
    off = torch.zeros((), dtype=on.dtype) if off_value is None else off_value.reshape(())
    return torch.where(hot, on, off)
