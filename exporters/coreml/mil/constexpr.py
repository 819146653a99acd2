"""Weights that are stored compressed: the `constexpr_*` operations, which unpack them when a package is loaded.

Every parameter is a numpy array or a string; the answer is an array. What is stored below a byte arrives with one
element in each byte. Operations of iOS 16 and of iOS 18 share names: `shape` or the rank tells them apart.
Source: coremltools' operation reference, `constexpr_ops` (iOS 16) and `compression` (iOS 18). No torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.exporters.coreml.mil.types import NUMPY, unpack


def blockwise_shift_scale(data: NDArray, scale: NDArray, offset: NDArray | None = None) -> NDArray:
    """scale · (data − offset); one scale for a block of elements, whose size is that of data over that of scale."""
    blocks = [size // scales for size, scales in zip(data.shape, scale.shape, strict=True)]
    shifted = data.astype(np.float32)
    if offset is not None:
        shifted -= _spread(offset.astype(np.float32), blocks)
    return (_spread(scale.astype(np.float32), blocks) * shifted).astype(scale.dtype)


def affine_dequantize(quantized_data: NDArray, zero_point: NDArray, scale: NDArray, axis: NDArray) -> NDArray:
    """scale · (data − zero point), a number each or one for every index of `axis`."""
    along = [1] * quantized_data.ndim
    along[int(axis)] = -1
    shift, factor = (
        part.astype(np.float32).reshape(along if part.ndim else ()) for part in (zero_point, scale)
    )
    return (factor * (quantized_data.astype(np.float32) - shift)).astype(scale.dtype)


def lut_to_dense(
    indices: NDArray, lut: NDArray, shape: NDArray | None = None, vector_axis: NDArray | None = None
) -> NDArray:
    """Entries of a table by their index.

    iOS 16: one table (entries,), indices packed into bytes, `shape` of the answer.
    iOS 18: tables (…, entries, vector), one for a block of indices; the vector is laid along `vector_axis`.
    """
    if shape is not None:
        bits = int(lut.size).bit_length() - 1
        count = int(np.prod(shape))
        whole = indices if bits == 8 else unpack(indices, f"uint{bits}", count)
        return lut[whole].reshape(shape)
    blocks = [size // tables for size, tables in zip(indices.shape, lut.shape[:-2], strict=True)]
    table = np.arange(int(np.prod(lut.shape[:-2]))).reshape(lut.shape[:-2])
    entries = lut.reshape(-1, *lut.shape[-2:])[_spread(table, blocks), indices]  # (*indices.shape, vector)
    if vector_axis is None:
        if lut.shape[-1] != 1:
            raise ValueError(f"a table of vectors of {lut.shape[-1]} without vector_axis")
        return entries[..., 0]
    axis = int(vector_axis) % indices.ndim
    merged = [size * lut.shape[-1] if at == axis else size for at, size in enumerate(indices.shape)]
    return np.moveaxis(entries, -1, axis + 1).reshape(merged)


def sparse_to_dense(nonzero_data: NDArray, mask: NDArray, shape: NDArray | None = None) -> NDArray:
    """Zero except where the mask is set; with `shape` (iOS 16) the mask is packed into bytes."""
    if shape is not None:
        mask = unpack(mask, "uint1", int(np.prod(shape))).reshape(shape)
    dense = np.zeros(mask.shape, nonzero_data.dtype)
    dense[mask != 0] = nonzero_data
    return dense


def cast(source_val: NDArray, output_dtype: str) -> NDArray:
    """The same values in another type."""
    return source_val.astype(NUMPY[output_dtype])


CONSTEXPR: dict[str, Callable[..., NDArray]] = {
    "constexpr_blockwise_shift_scale": blockwise_shift_scale,
    "constexpr_affine_dequantize": affine_dequantize,
    "constexpr_lut_to_dense": lut_to_dense,
    "constexpr_sparse_to_dense": sparse_to_dense,
    "constexpr_cast": cast,
}


def _spread(values: NDArray, blocks: list[int]) -> NDArray:
    """Each value repeated over its block; a block of the whole axis is left to broadcasting."""
    for axis, size in enumerate(blocks):
        if size > 1 and values.shape[axis] > 1:
            values = np.repeat(values, size, axis)
    return values
