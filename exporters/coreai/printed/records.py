"""What a printed program consists of: types, operations and graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

CONSTANT, OUTPUT = "constant", "output"
NUMPY = {"f32": "float32", "f16": "float16", "si32": "int32", "ui32": "uint32", "ui8": "uint8", "i1": "bool"}
NUMPY |= {
    "si8": "int8",
    "si16": "int16",
    "ui16": "uint16",
    "si64": "int64",
    "ui64": "uint64",
    "f64": "float64",
    "si4": "int8",
    "ui4": "uint8",
    "ui6": "uint8",
}


@dataclass(frozen=True)
class Type:
    """Shape and element type; a dimension that is not known is None."""

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def is_static(self) -> bool:
        return None not in self.shape

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape of a static type."""
        return tuple(size for size in self.shape if size is not None)


@dataclass(frozen=True)
class Operation:
    """One operation: what it reads, the types of that, and what it makes."""

    kind: str  # without the prefix "decomposable."
    name: str  # of its first result
    reads: tuple[str, ...]
    takes: tuple[Type, ...]
    makes: tuple[Type, ...]
    head: str  # what stands before the types; of a constant: its value
    parts: tuple[Operation, ...] = ()  # of one that unpacks a weight: the constants that it reads


@dataclass(frozen=True)
class Graph:
    """One function, or a part that functions call."""

    name: str
    private: bool
    inputs: Mapping[str, Type]
    outputs: Mapping[str, Type]
    operations: tuple[Operation, ...]
    declared: str = (
        ""  # of a part: what it is, with its parameters; a device may run that instead of its operations
    )

    @cached_property
    def makers(self) -> dict[str, Operation]:
        """The operation that makes each value."""
        return {operation.name: operation for operation in self.operations}

    def constant(self, name: str) -> Operation | None:
        """The constant that a value is, perhaps turned, reshaped or compressed; None for a value that is computed.

        Of a compressed weight: the operation that unpacks it.
        """
        operation = self.makers.get(name)
        while operation is not None and operation.kind in ("transpose", "reshape"):
            operation = self.makers.get(operation.reads[0])
        return (
            operation if operation is not None and (operation.kind == CONSTANT or operation.parts) else None
        )
