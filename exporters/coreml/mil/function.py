"""A function of a Core ML package as plain records: operations, constants and named values. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from morvit_deploy.exporters.coreml.mil.types import Value, ValueType


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant value. `stored` is its place in a weight file; None: it is written into the model itself."""

    type: ValueType
    value: Any = field(repr=False)  # an array; a string; a list of strings or numbers. Its readers know which
    stored: tuple[str, int] | None = None

    @cached_property
    def digest(self) -> str:
        """Of type, shape and content: equal constants have equal digests."""
        content = hashlib.sha256(f"{self.type.dtype} {self.type.shape} ".encode())
        content.update(np.ascontiguousarray(self.value).data if self._is_array else repr(self.value).encode())
        return content.hexdigest()

    @property
    def _is_array(self) -> bool:
        return isinstance(self.value, np.ndarray) and self.value.dtype.kind in "fiub"


Argument = tuple["str | Constant", ...]  # names of values, or constants written in place


@dataclass(frozen=True)
class Operation:
    """One operation of a function; of a `const`, `constant` is its value."""

    type: str
    name: str
    inputs: Mapping[str, Argument]  # parameter -> what it reads
    outputs: tuple[Value, ...]
    blocks: tuple[tuple[Operation, ...], ...] = ()  # bodies of a loop or a condition

    @property
    def constant(self) -> Constant:
        """The value of a `const`."""
        (value,) = self.inputs["val"]
        assert isinstance(value, Constant)
        return value

    @property
    def reads(self) -> Iterator[str]:
        """Names of the values that it reads."""
        return (item for argument in self.inputs.values() for item in argument if isinstance(item, str))


@dataclass(frozen=True)
class Function:
    """One function of a package."""

    name: str
    opset: str
    inputs: tuple[Value, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[str, ...]  # names

    @cached_property
    def types(self) -> dict[str, ValueType]:
        """Name of a value -> its type."""
        made = (value for operation in self.operations for value in operation.outputs)
        return {value.name: value.type for value in (*self.inputs, *made)}

    @cached_property
    def constants(self) -> dict[str, Constant]:
        """Name of a value -> the constant it is."""
        return {op.outputs[0].name: op.constant for op in self.operations if op.type == "const"}

    def constant(self, operation: Operation, parameter: str) -> Any:
        """The constant that a parameter reads: an array, a string or a list. None: not given, or computed."""
        (item, *more) = operation.inputs.get(parameter, (None,))
        found = self.constants.get(item) if isinstance(item, str) else item
        return found.value if found is not None and not more else None
