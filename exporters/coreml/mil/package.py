"""Reads a saved Core ML package (`.mlpackage`) into plain records. No torch.

It parses the package's protobuf messages, and the weight file by its published layout. coremltools' own reader
(`converters.mil.frontend.milproto`, private) rebuilds the compiler's program and infers every type; it takes eight
times as long (2.8 s against 0.3 s for six functions of 976 operations, measured with 9.0), and returns the program
that would be written next, not the one that was written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.mil.blob import BlobFile
from morvit_deploy.exporters.coreml.mil.function import Argument, Constant, Function, Operation
from morvit_deploy.exporters.coreml.mil.types import (
    NUMPY,
    OF_PROTO,
    SUB_BYTE,
    Array,
    Value,
    ValueType,
    unpack,
)
from morvit_deploy.exporters.coreml.sdk.load import Message, coremltools

MANIFEST = "Manifest.json"
_MODEL_PATH = "@model_path"  # the folder of the model file, in the names of weight files


def read_package(package: Path) -> dict[str, Function]:
    """The functions of a saved package by name, in its order. BundleError for a damaged or foreign one.

    A weight that several functions read is one `Constant`.
    """
    path = model_file(package)
    model = _model(path)
    program = model.mlProgram.functions
    names = [described.name for described in model.description.functions] or sorted(program)
    if not names or set(names) != set(program):
        raise BundleError(f"{path}: it describes the functions {names}, its program has {sorted(program)}")
    reader = _Reader(path.parent)
    try:
        return {name: reader.function(name, program[name]) for name in names}
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{path}: the program cannot be read ({error}); export the package again"
        ) from error


def model_file(package: Path) -> Path:
    """The model file that a package's manifest names."""
    path = package / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        inner = PurePosixPath(manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{package}: not a Core ML package: {MANIFEST} names no model ({type(error).__name__}: {error})"
        ) from None
    if inner.is_absolute() or ".." in inner.parts:
        raise BundleError(f"{path}: it names {str(inner)!r}, which is not inside the package")
    return package / "Data" / inner


def _model(path: Path) -> Message:
    coremltools()
    from coremltools.proto import Model_pb2

    model = Model_pb2.Model()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf raises types of its own
        raise BundleError(f"{path}: not a Core ML model ({error}); export the package again") from None
    if (found := model.WhichOneof("Type")) != "mlProgram":
        raise BundleError(f"{path}: a model of type {found}, expected mlProgram; export the package again")
    return model


@dataclass
class _Reader:
    """Reads the messages of one package; what its functions share is read once."""

    folder: Path  # of the model file
    blobs: dict[str, BlobFile] = field(default_factory=dict)
    stored: dict[tuple[str, int, ValueType], Constant] = field(default_factory=dict)

    def function(self, name: str, message: Message) -> Function:
        if message.opset not in message.block_specializations:
            raise ValueError(f"function {name!r} has no block for its operation set {message.opset!r}")
        block = message.block_specializations[message.opset]
        function = Function(
            name,
            message.opset,
            tuple(_value(value) for value in message.inputs),
            tuple(self.operation(op) for op in block.operations),
            tuple(block.outputs),
        )
        if missing := set(function.outputs) - set(function.types):
            raise ValueError(f"function {name!r} returns {sorted(missing)}, which nothing computes")
        return function

    def operation(self, message: Message) -> Operation:
        inputs: dict[str, Argument] = {
            name: tuple(
                item.name if item.WhichOneof("binding") == "name" else self.constant(item.value)
                for item in argument.arguments
            )
            for name, argument in message.inputs.items()
        }
        # besides the name: a constant's value, and the parameters of older constexpr_*
        attributes = {key: self.constant(value) for key, value in message.attributes.items()}
        name = attributes.pop("name").value if "name" in attributes else ""
        inputs |= {key: (constant,) for key, constant in attributes.items()}
        outputs = tuple(_value(value) for value in message.outputs)
        if message.type == "const" and (
            len(outputs) != 1 or not isinstance(inputs.get("val", ("",))[0], Constant)
        ):
            raise ValueError(f"the constant {name!r} has no value")
        blocks = tuple(tuple(self.operation(op) for op in block.operations) for block in message.blocks)
        return Operation(message.type, name or message.type, inputs, outputs, blocks)

    def constant(self, message: Message) -> Constant:
        kind = _type(message.type)
        if message.WhichOneof("value") == "blobFileValue":
            blob = message.blobFileValue
            return self.stored_constant(blob.fileName, int(blob.offset), kind)
        return Constant(kind, self.immediate(message.immediateValue, kind))

    def stored_constant(self, name: str, offset: int, kind: ValueType) -> Constant:
        if (key := (name, offset, kind)) not in self.stored:
            parts = PurePosixPath(name).parts
            if parts[0] != _MODEL_PATH or ".." in parts:
                raise ValueError(f"weights in {name!r}, expected a file under {_MODEL_PATH}")
            if name not in self.blobs:
                self.blobs[name] = BlobFile(self.folder.joinpath(*parts[1:]))
            self.stored[key] = Constant(kind, self.blobs[name].read(offset, kind), (name, offset))
        return self.stored[key]

    def immediate(self, message: Message, kind: ValueType) -> Array | str | list[Any]:
        """An array; a string; or a list, whose elements are Python's own."""
        form = message.WhichOneof("value")
        if form == "list":
            items = [self.constant(item).value for item in message.list.values]
            return [item.item() if isinstance(item, np.ndarray) else item for item in items]
        if form != "tensor":
            raise ValueError(f"a constant of the form {form}")
        values = getattr(message.tensor, message.tensor.WhichOneof("value")).values
        if kind.dtype == "string":
            texts = [str(text) for text in values]
            return texts[0] if kind.shape == () else texts
        if isinstance(values, bytes):
            return _of_bytes(values, kind)
        return np.array(values, dtype=NUMPY[kind.dtype]).reshape(kind.sizes)


def _value(message: Message) -> Value:
    return Value(message.name, _type(message.type))


def _type(message: Message) -> ValueType:
    from coremltools.proto import MIL_pb2

    kind = message.WhichOneof("type")
    if kind != "tensorType":
        return ValueType(kind.removesuffix("Type"))
    tensor = message.tensorType
    dims = (
        int(dim.constant.size) if dim.WhichOneof("dimension") == "constant" else None
        for dim in tensor.dimensions
    )
    proto_name = MIL_pb2.DataType.Name(tensor.dataType)
    return ValueType(OF_PROTO.get(proto_name, proto_name.lower()), tuple(dims))


def _of_bytes(values: bytes, kind: ValueType) -> Array:
    if kind.dtype in SUB_BYTE:
        return unpack(np.frombuffer(values, np.uint8), kind.dtype, kind.elements).reshape(kind.sizes)
    return np.frombuffer(values, NUMPY[kind.dtype]).reshape(kind.sizes)
