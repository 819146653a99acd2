"""A copy of a written Core ML package under change: operations, constants, the weight file."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from coremltools.proto import Model_pb2

from morvit_deploy.exporters.coreml.mlpackage.save import MODEL, WEIGHTS

_ENTRY = 64  # bytes before an array in the weight file: mark, type, size, place


@dataclass
class Edit:
    """A saved package under change."""

    package: Path

    def __post_init__(self) -> None:
        self.spec = Model_pb2.Model()
        self.spec.ParseFromString((self.package / MODEL).read_bytes())

    def save(self) -> None:
        (self.package / MODEL).write_bytes(self.spec.SerializeToString())

    @property
    def program(self) -> Any:
        return self.spec.mlProgram

    def block(self, function: str) -> Any:
        (block,) = self.program.functions[function].block_specializations.values()
        return block

    def blocks(self) -> Iterator[Any]:
        for function in self.program.functions:
            yield self.block(function)

    def stored(self, block: Any) -> Iterator[Any]:
        """The references of a function to the weight file."""
        for op in block.operations:
            values = [*op.attributes.values(), *(b.value for a in op.inputs.values() for b in a.arguments)]
            yield from (v.blobFileValue for v in values if v.WhichOneof("value") == "blobFileValue")

    def move(self, changes: dict[int, int], functions: tuple[str, ...] = ()) -> None:
        """Point references to other places of the weight file, in some functions or in all."""
        for name in functions or tuple(self.program.functions):
            for reference in self.stored(self.block(name)):
                reference.offset = changes.get(reference.offset, reference.offset)

    def append_copy(self, place: int) -> int:
        """Store an array a second time; its new place."""
        path = self.package / WEIGHTS
        data = bytearray(path.read_bytes())
        mark, code, size, start = struct.unpack_from("<IIQQ", data, place)
        data.extend(bytes(-len(data) % _ENTRY))
        new = len(data)
        rest = bytes(data[place + 24 : place + _ENTRY])
        data.extend(struct.pack("<IIQQ", mark, code, size, new + _ENTRY) + rest + data[start : start + size])
        path.write_bytes(data)
        return new

    def write(self, place: int, first: np.float32) -> None:
        """Another first element for a stored array."""
        path = self.package / WEIGHTS
        data = bytearray(path.read_bytes())
        data[place + _ENTRY : place + _ENTRY + 4] = first.tobytes()
        path.write_bytes(data)

    def operation(self, function: str, kind: str, number: int = 0) -> Any:
        """The nth operation of a kind."""
        return [op for op in self.block(function).operations if op.type == kind][number]

    def constant(self, function: str, operation: Any, parameter: str) -> Any:
        """The values of the immediate constant that a parameter reads."""
        (read,) = operation.inputs[parameter].arguments
        value = read.value
        if read.name:
            maker = next(op for op in self.block(function).operations if op.outputs[0].name == read.name)
            value = maker.attributes["val"]
        tensor = value.immediateValue.tensor
        return getattr(tensor, tensor.WhichOneof("value"))
