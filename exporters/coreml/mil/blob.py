"""The weight file of a Core ML package (`weight.bin`), mapped into memory. No torch, no coremltools.

A header of 64 bytes, then for every array an entry of 64 bytes with its type, size and offset; all numbers are
little-endian and all offsets are multiples of 64. Source: coremltools, `mlmodel/src/MILBlob/Blob/StorageFormat.hpp`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.mil.types import NUMPY, SUB_BYTE, Array, ValueType, bytes_of, unpack

_HEADER = struct.Struct("<II56x")  # number of arrays, version of the format
_ENTRY = struct.Struct("<IIQQQ32x")  # mark, type, bytes, offset of the first byte, unused bits at the end
_VERSION = 2
_MARK = 0xDEADBEEF
_TYPES = {
    **{1: "fp16", 2: "fp32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 8: "int4"},
    **{9: "uint1", 10: "uint2", 11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32"},
}
_CODES = {name: code for code, name in _TYPES.items()}


class BlobFile:
    """One weight file; arrays are views of the mapped file. BundleError where it lacks an array."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._bytes = np.memmap(path, dtype=np.uint8, mode="c").view(np.ndarray)
        except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
            raise BundleError(
                f"{path}: the weights cannot be read ({error}); export the package again"
            ) from None
        if self._bytes.size < _HEADER.size:
            raise BundleError(
                f"{path}: {self._bytes.size} bytes are no weight file; export the package again"
            )
        _, version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())
        if version != _VERSION:
            raise BundleError(f"{path}: a weight file of version {version}, this reads version {_VERSION}")

    def read(self, offset: int, kind: ValueType) -> Array:
        """The array whose entry is at `offset`, with that type and number of elements."""
        end = offset + _ENTRY.size
        if end > self._bytes.size:
            raise self._cut(f"an entry at byte {offset}")
        mark, code, size, start, _ = _ENTRY.unpack(self._bytes[offset:end].tobytes())
        expected = bytes_of(kind.dtype, kind.elements)
        if mark != _MARK or code != _CODES.get(kind.dtype) or size != expected:
            found = f"{size} bytes of {_TYPES.get(code, f'type {code}')}" if mark == _MARK else "no array"
            raise BundleError(
                f"{self.path}: the model expects {expected} bytes of {kind.dtype} at byte {offset}, there is {found}"
                "; the weights belong to another package or were changed: export it again"
            )
        if start + size > self._bytes.size:
            raise self._cut(f"an array from byte {start} to {start + size}")
        raw = self._bytes[start : start + size]
        if kind.dtype in SUB_BYTE:
            return unpack(raw, kind.dtype, kind.elements).reshape(kind.sizes)
        return raw.view(NUMPY[kind.dtype]).reshape(kind.sizes)

    def _cut(self, what: str) -> BundleError:
        return BundleError(
            f"{self.path}: it holds {self._bytes.size} bytes, the model expects {what}; the file was cut off: "
            "copy it again or export it again"
        )
