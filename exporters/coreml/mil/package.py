"""A saved Core ML package (`.mlpackage`), read into plain records: functions, operations, constants. No torch.

The package's own messages (protobuf) are read, and the weight file by its published layout. coremltools has a reader
too (`converters.mil.frontend.milproto`, private): it builds the compiler's program again, inferring every type, takes
eight times as long (2.8 s against 0.3 s for six functions of 976 operations, measured with 9.0), and answers the
program that would be written next, where a check should see the one that was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreml.mil.blob import BlobFile
from morvit_deploy.exporters.coreml.mil.types import NUMPY, OF_PROTO, SUB_BYTE, Value, ValueType, unpack
from morvit_deploy.exporters.coreml.sdk.tools import coremltools

MANIFEST = "Manifest.json"
_MODEL_PATH = "@model_path"  # the folder of the model file, in the names of weight files


@dataclass(frozen=True, eq=False)
class Constant:
    """A constant value. `stored` names its bytes in a weight file; None: it is written into the model itself."""

    type: ValueType
    value: Any = field(repr=False)  # an array; a string; a list of strings or numbers
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


@dataclass
class _Reading:
    """What is shared while one package is read."""

    folder: Path  # of the model file
    mil: Any  # the protobuf module of MIL
    blobs: dict[str, BlobFile] = field(default_factory=dict)
    stored: dict[tuple[str, int, ValueType], Constant] = field(default_factory=dict)


def read_package(package: Path) -> dict[str, Function]:
    """The functions of a saved package by name, in its order. BundleError for a damaged or foreign one.

    A weight that several functions read is one `Constant`.
    """
    path = model_file(package)
    coremltools()
    from coremltools.proto import MIL_pb2, Model_pb2

    model = Model_pb2.Model()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf raises types of its own
        raise BundleError(f"{path}: not a Core ML model ({error}); export the package again") from None
    if (found := model.WhichOneof("Type")) != "mlProgram":
        raise BundleError(f"{path}: a model of type {found}, expected mlProgram; export the package again")
    reading = _Reading(path.parent, MIL_pb2)
    program = model.mlProgram.functions
    names = [told.name for told in model.description.functions] or sorted(program)
    if not names or set(names) != set(program):
        raise BundleError(f"{path}: it describes the functions {names}, its program has {sorted(program)}")
    try:
        return {name: _function(reading, name, program[name]) for name in names}
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


def _function(reading: _Reading, name: str, message: Any) -> Function:
    if message.opset not in message.block_specializations:
        raise ValueError(f"function {name!r} has no block for its operation set {message.opset!r}")
    block = message.block_specializations[message.opset]
    function = Function(
        name,
        message.opset,
        tuple(_value(reading, value) for value in message.inputs),
        tuple(_operation(reading, op) for op in block.operations),
        tuple(block.outputs),
    )
    if missing := set(function.outputs) - set(function.types):
        raise ValueError(f"function {name!r} answers {sorted(missing)}, which nothing computes")
    return function


def _operation(reading: _Reading, message: Any) -> Operation:
    inputs: dict[str, Argument] = {
        name: tuple(
            item.name if item.WhichOneof("binding") == "name" else _constant(reading, item.value)
            for item in argument.arguments
        )
        for name, argument in message.inputs.items()
    }
    name = ""
    for (
        key,
        value,
    ) in message.attributes.items():  # a constant's value, and the parameters of older constexpr_*
        if key == "name":
            name = _constant(reading, value).value
        else:
            inputs[key] = (_constant(reading, value),)
    outputs = tuple(_value(reading, value) for value in message.outputs)
    if message.type == "const" and (
        len(outputs) != 1 or not isinstance(inputs.get("val", ("",))[0], Constant)
    ):
        raise ValueError(f"the constant {name!r} has no value")
    blocks = tuple(tuple(_operation(reading, op) for op in block.operations) for block in message.blocks)
    return Operation(message.type, name or message.type, inputs, outputs, blocks)


def _value(reading: _Reading, message: Any) -> Value:
    return Value(message.name, _type(reading, message.type))


def _type(reading: _Reading, message: Any) -> ValueType:
    kind = message.WhichOneof("type")
    if kind != "tensorType":
        return ValueType(kind.removesuffix("Type"))
    tensor = message.tensorType
    dims = (
        int(dim.constant.size) if dim.WhichOneof("dimension") == "constant" else None
        for dim in tensor.dimensions
    )
    proto_name = reading.mil.DataType.Name(tensor.dataType)
    return ValueType(OF_PROTO.get(proto_name, proto_name.lower()), tuple(dims))


def _constant(reading: _Reading, message: Any) -> Constant:
    kind = _type(reading, message.type)
    if message.WhichOneof("value") == "blobFileValue":
        return _stored(reading, message.blobFileValue.fileName, int(message.blobFileValue.offset), kind)
    return Constant(kind, _immediate(message.immediateValue, kind, reading))


def _stored(reading: _Reading, name: str, offset: int, kind: ValueType) -> Constant:
    if (key := (name, offset, kind)) not in reading.stored:
        parts = PurePosixPath(name).parts
        if parts[0] != _MODEL_PATH or ".." in parts:
            raise ValueError(f"weights in {name!r}, expected a file under {_MODEL_PATH}")
        if name not in reading.blobs:
            reading.blobs[name] = BlobFile(reading.folder.joinpath(*parts[1:]))
        reading.stored[key] = Constant(kind, reading.blobs[name].read(offset, kind), (name, offset))
    return reading.stored[key]


def _immediate(message: Any, kind: ValueType, reading: _Reading) -> Any:
    """An array; a string; or a list, whose elements are answered as Python's own."""
    if (form := message.WhichOneof("value")) == "list":
        items = [_constant(reading, item).value for item in message.list.values]
        return [item.item() if isinstance(item, np.ndarray) else item for item in items]
    if form != "tensor":
        raise ValueError(f"a constant of the form {form}")
    values = getattr(message.tensor, message.tensor.WhichOneof("value")).values
    if kind.dtype == "string":
        texts = [str(text) for text in values]
        return texts[0] if kind.shape == () else texts
    if not isinstance(values, bytes):
        return np.array(values, dtype=NUMPY[kind.dtype]).reshape(kind.shape)
    return _of_bytes(values, kind)


def _of_bytes(values: bytes, kind: ValueType) -> NDArray:
    if kind.dtype in SUB_BYTE:
        flat = unpack(np.frombuffer(values, np.uint8), kind.dtype, kind.elements)
    else:
        flat = np.frombuffer(values, NUMPY[kind.dtype])
    return flat.reshape([dim for dim in kind.shape if dim is not None])
