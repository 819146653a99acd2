"""Compressed weights of a Core AI program: the operations that unpack them, and elements smaller than a byte.

Only what `--weights` writes is implemented. Source: docstrings of `coreai_torch._compression.custom_layers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

# bits of an element; an array of numpy holds one in a byte
SUB_BYTE = {"si4": 4, "ui4": 4, "ui6": 6}


def split_bytes(stored: bytes, dtype: str, elements: int) -> Array:
    """Elements smaller than a byte, which are stored without gaps from the lowest bit on; ValueError for too few."""
    bits = SUB_BYTE[dtype]
    every = np.unpackbits(np.frombuffer(stored, np.uint8), bitorder="little")
    places = every[: bits * elements].reshape(elements, bits)
    values: Array = (places << np.arange(bits, dtype=np.uint8)).sum(axis=1).astype(np.uint8)
    if dtype.startswith("ui"):
        return values
    return np.where(values >> (bits - 1), values.astype(np.int16) - (1 << bits), values).astype(np.int8)


def blockwise_shift_scale(data: Array, scale: Array, offset: Array, least: Array) -> Array:
    """scale · (data − offset) + least, in the type of `scale`; each of these holds for a block of elements."""
    floats = (part.astype(np.float32) for part in (scale, offset, least))
    factor, shift, base = (spread(part, data.shape) for part in floats)
    dense: Array = factor * (data.astype(np.float32) - shift) + base
    return dense.astype(scale.dtype)


def lut_to_dense(indices: Array, lut: Array, axis: Array) -> Array:
    """Entries (…, entries, 1) of one table by their index; ValueError for several tables or tables of vectors."""
    if math.prod(lut.shape) != lut.shape[-2]:
        raise ValueError(f"tables {list(lut.shape)}, expected one table of numbers")
    dense: Array = lut.reshape(-1)[indices]
    return dense


UNPACK: dict[str, Callable[..., Array]] = {
    "blockwise_shift_scale": blockwise_shift_scale,
    "lut_to_dense": lut_to_dense,
}


def spread(values: Array, shape: tuple[int, ...]) -> Array:
    """Repeat each value over its block of an array of `shape`; ValueError for blocks that do not fill it."""
    for axis, size in enumerate(shape):
        if size % values.shape[axis]:
            raise ValueError(f"{list(values.shape)} values for {list(shape)} elements")
        values = np.repeat(values, size // values.shape[axis], axis)
    return values
