"""Types of MIL values, and the numpy arrays that hold them. No torch, no coremltools."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]  # Any: a package says what an array holds when it is read

# MIL's name of a type -> the numpy type that holds one element; types below a byte are unpacked into bytes
NUMPY: dict[str, DTypeLike] = {
    **{"fp16": np.float16, "fp32": np.float32, "fp64": np.float64, "bool": np.bool_},
    **{f"{sign}int{bits}": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "int4": np.int8,
    **{f"uint{bits}": np.uint8 for bits in (1, 2, 3, 4, 6)},
}
# the protobuf's name of a type -> MIL's
OF_PROTO = {
    **{"FLOAT16": "fp16", "FLOAT32": "fp32", "FLOAT64": "fp64", "BOOL": "bool", "STRING": "string"},
    **{f"{sign}INT{bits}": f"{sign.lower()}int{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
    "INT4": "int4",
    **{f"UINT{bits}": f"uint{bits}" for bits in (1, 2, 3, 4, 6)},
}
SUB_BYTE = {"int4": 4, **{f"uint{bits}": bits for bits in (1, 2, 3, 4, 6)}}  # bits of one element
FLOATS = ("fp16", "fp32")


@dataclass(frozen=True)
class ValueType:
    """The type of a value: a tensor's, or of a `list`, `dictionary` or `state`, which have no shape.

    A dimension that the package leaves open is None.
    """

    dtype: str
    shape: tuple[int | None, ...] = ()

    @property
    def is_static(self) -> bool:
        return None not in self.shape

    @property
    def elements(self) -> int:
        """Number of elements; ValueError for a dimension that is open."""
        return math.prod(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape; ValueError for a dimension that is open."""
        dims = tuple(dim for dim in self.shape if dim is not None)
        if len(dims) != len(self.shape):
            raise ValueError(f"the shape {self.shape} has a dimension that is not known")
        return dims

    def fits(self, shape: Sequence[int]) -> bool:
        """Can a value of this type have that shape?"""
        if len(shape) != len(self.shape):
            return False
        return all(size in (None, found) for size, found in zip(self.shape, shape, strict=True))


@dataclass(frozen=True)
class Value:
    """A named value of a function."""

    name: str
    type: ValueType


def bytes_of(dtype: str, elements: int) -> int:
    """Bytes that so many elements take where they are stored; below a byte they are packed without gaps."""
    bits = SUB_BYTE.get(dtype) or 8 * np.dtype(NUMPY[dtype]).itemsize
    return -(-bits * elements // 8)


def unpack(packed: NDArray[np.uint8], dtype: str, elements: int) -> Array:
    """Elements below a byte, packed from the lowest bit up, each into a byte of its own."""
    bits = SUB_BYTE[dtype]
    whole: Array
    if bits == 4:  # two to a byte: most weights, and many
        whole = np.stack([packed & 0xF, packed >> 4], axis=-1).reshape(-1)[:elements]
    else:
        single = np.unpackbits(packed, bitorder="little")[: bits * elements].reshape(elements, bits)
        whole = np.packbits(single, axis=-1, bitorder="little").reshape(elements)
    if dtype != "int4":
        return whole
    signed: Array = (whole ^ 8).astype(np.int8) - np.int8(8)  # two's complement of four bits
    return signed
