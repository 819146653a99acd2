"""Compressed weights: the `constexpr_*` operations, which unpack them when a package is loaded.

Parameters and results are numpy arrays; elements smaller than a byte are unpacked to one byte each. Only the
compressions of `--weights` are implemented. iOS 16 and iOS 18 have operations of the same name; `shape` distinguishes
them. Source: coremltools' operation reference, `constexpr_ops` (iOS 16) and `compression` (iOS 18).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from morvit_deploy.exporters.coreml.mil.function import Constant, Operation
from morvit_deploy.exporters.coreml.mil.ops import dense
from morvit_deploy.exporters.coreml.mil.types import NUMPY, Array, unpack


def blockwise_shift_scale(data: Array, scale: Array, offset: Array | None = None) -> Array:
    """scale · (data − offset); one scale for a block of elements, whose size is that of data over that of scale."""
    blocks = [size // scales for size, scales in zip(data.shape, scale.shape, strict=True)]
    shifted = data.astype(np.float32)
    if offset is not None:
        shifted -= _spread(offset.astype(np.float32), blocks)
    dense: Array = _spread(scale.astype(np.float32), blocks) * shifted
    return dense.astype(scale.dtype)


def affine_dequantize(quantized_data: Array, zero_point: Array, scale: Array, axis: Array) -> Array:
    """scale · (data − zero point), a number each or one for every index of `axis`."""
    along = [1] * quantized_data.ndim
    along[int(axis)] = -1
    shift, factor = (
        part.astype(np.float32).reshape(along if part.ndim else ()) for part in (zero_point, scale)
    )
    dense: Array = factor * (quantized_data.astype(np.float32) - shift)
    return dense.astype(scale.dtype)


def lut_to_dense(
    indices: Array, lut: Array, shape: Array | None = None, vector_axis: Array | None = None
) -> Array:
    """Entries of a table by their index.

    iOS 16: one table (entries,), indices packed into bytes, `shape` of the result.
    iOS 18: tables (…, entries, vector), one for a block of indices; the vector is laid along `vector_axis`.
    """
    if shape is not None:
        bits = int(lut.size).bit_length() - 1
        count = int(np.prod(shape))
        whole = indices if bits == 8 else unpack(indices, f"uint{bits}", count)
        dense: Array = lut[whole]
        return dense.reshape(shape)
    blocks = [size // tables for size, tables in zip(indices.shape, lut.shape[:-2], strict=True)]
    table = np.arange(int(np.prod(lut.shape[:-2]))).reshape(lut.shape[:-2])
    entries: Array = lut.reshape(-1, *lut.shape[-2:])[
        _spread(table, blocks), indices
    ]  # (*indices.shape, vector)
    if vector_axis is None:
        if lut.shape[-1] != 1:
            raise ValueError(f"a table of vectors of {lut.shape[-1]} without vector_axis")
        entries = entries.squeeze(-1)
        return entries
    axis = int(vector_axis) % indices.ndim
    merged = [size * lut.shape[-1] if at == axis else size for at, size in enumerate(indices.shape)]
    return np.moveaxis(entries, -1, axis + 1).reshape(merged)


CONSTEXPR: dict[str, Callable[..., Array]] = {
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_lut_to_dense": lut_to_dense,
}


class Weights:
    """A package's constants as tensors; each is unpacked and converted once, whatever functions read it.

    `floats` is the type of floating point: float64 computes without the package's own rounding.
    """

    def __init__(self, floats: torch.dtype = torch.float32) -> None:
        self.floats = floats
        self._tensors: dict[object, Tensor] = {}
        self._unpacked: dict[object, Constant] = {}

    def tensor(self, constant: Constant) -> Tensor:
        """`floats`, int64 or bool."""
        if (key := _key(constant)) not in self._tensors:
            self._tensors[key] = dense(np.asarray(constant.value), self.floats)
        return self._tensors[key]

    def unpack(self, operation: Operation, parameters: Mapping[str, Constant]) -> Constant:
        """The weight that a `constexpr_*` unpacks; ValueError where it is not of the declared type."""
        key = (operation.type, *sorted((name, _key(value)) for name, value in parameters.items()))
        if key not in self._unpacked:
            values = CONSTEXPR[operation.type](**{name: held.value for name, held in parameters.items()})
            kind = operation.outputs[0].type
            if values.shape != kind.shape or values.dtype != NUMPY.get(kind.dtype):
                raise ValueError(f"it unpacks to {values.dtype} {values.shape}, expected {kind}")
            self._unpacked[key] = Constant(kind, values)
        return self._unpacked[key]


def _key(constant: Constant) -> object:
    """Equal for constants of the same type and content."""
    return (*constant.stored, constant.type) if constant.stored else constant.digest


def _spread(values: Array, blocks: list[int]) -> Array:
    """Repeat each value over its block; a block of the whole axis is left to broadcasting."""
    for axis, size in enumerate(blocks):
        if size > 1 and values.shape[axis] > 1:
            values = np.repeat(values, size, axis)
    return values
