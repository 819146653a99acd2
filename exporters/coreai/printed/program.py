"""Reads a Core AI program: its functions, operations and constants, from the text that Core AI prints of an asset."""

from __future__ import annotations

import ast
import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.coreai.printed.asset import open_asset
from morvit_deploy.exporters.coreai.printed.records import CONSTANT as CONSTANT
from morvit_deploy.exporters.coreai.printed.records import NUMPY as NUMPY
from morvit_deploy.exporters.coreai.printed.records import OUTPUT as OUTPUT
from morvit_deploy.exporters.coreai.printed.records import Graph as Graph
from morvit_deploy.exporters.coreai.printed.records import Operation as Operation
from morvit_deploy.exporters.coreai.printed.records import Type as Type
from morvit_deploy.exporters.coreai.printed.unpack import SUB_BYTE, UNPACK, split_bytes

ALIGNMENT = 8  # hex digits before a resource's bytes: how they are aligned

_GRAPH = re.compile(r"^\s*coreai\.graph (?:(private) )?(?:noinline )?@(\S+?)\((.*)$")
_OPERATION = re.compile(r"^\s*(?:%(\w+)(?::\d+)? = )?coreai\.([\w.]+) ?(.*)$")
_TYPE = re.compile(r"tensor<([^>]*)>")
_PORT = re.compile(r'tensor<([^>]*)> \{coreai\.name = "([^"]*)"')
_VALUE = re.compile(r"%(\w+)(?:#\d+)?")
_DECLARED = re.compile(r"composite_declaration<.*}>")
_RESOURCE = re.compile(r'^\s*(\w+): "0x([0-9A-Fa-f]*)"')


class ProgramText:
    """A program as Core AI prints it."""

    def __init__(self, text: str) -> None:
        body, _, end = text.partition("\n{-#")
        self.graphs = {graph.name: graph for graph in _graphs(body)}
        found = (_RESOURCE.match(line) for line in end.splitlines())
        self._resources = {match[1]: match[2] for match in found if match}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._digests: dict[str, str] = {}

    @property
    def functions(self) -> tuple[Graph, ...]:
        """What an app can call, in order."""
        return tuple(graph for graph in self.graphs.values() if not graph.private)

    def array(self, constant: Operation) -> NDArray[Any]:
        """The values of a constant, unpacked if it is compressed; BundleError for one that is written otherwise."""
        (kind,) = constant.makes
        key = f"{self.place(constant)} {kind}"
        if key not in self._arrays:
            self._arrays[key] = (
                self._unpacked(constant, kind) if constant.parts else self._read(constant.head, kind)
            )
        return self._arrays[key]

    def place(self, constant: Operation) -> str:
        """Where a constant is stored: the same for constants that share it."""
        if constant.parts:
            return " ".join([constant.kind, *map(self.place, constant.parts)])
        return (
            constant.head
            if constant.head.startswith("dense_resource")
            else f"{constant.head} {constant.makes}"
        )

    def is_one(self, constant: Operation) -> bool:
        """Is it stored as a single value, whatever its shape?"""
        return not any(self.array(constant).strides)

    def stored_bytes(self, constant: Operation) -> int:
        """What the values of a constant take in the file if each is stored."""
        (kind,) = constant.makes
        bits = SUB_BYTE.get(kind.dtype) or 8 * self.array(constant).itemsize
        return -(-bits * self.array(constant).size // 8)

    def content(self, constant: Operation) -> str:
        """The same for constants of the same values, whatever a program calls them."""
        if not constant.head.startswith("dense_resource"):
            return constant.head
        name = constant.head[constant.head.index("<") + 1 : constant.head.rindex(">")]
        if name not in self._digests:
            self._digests[name] = hashlib.sha256(self._resources[name].encode()).hexdigest()
        return self._digests[name]

    def _unpacked(self, operation: Operation, kind: Type) -> NDArray[Any]:
        try:
            values = UNPACK[operation.kind](*map(self.array, operation.parts))
        except (IndexError, TypeError, ValueError) as error:
            raise BundleError(f"{operation.kind} %{operation.name} cannot be read: {error}") from error
        if values.shape != kind.sizes or values.dtype != NUMPY.get(kind.dtype):
            raise BundleError(
                f"{operation.kind} %{operation.name} unpacks to {values.dtype} {values.shape}, expected {kind}"
            )
        return values

    def _read(self, text: str, kind: Type) -> NDArray[Any]:
        dtype = np.dtype(NUMPY.get(kind.dtype, "void"))
        inside = text[text.index("<") + 1 : text.rindex(">")]
        try:
            if text.startswith("dense_resource"):
                stored = bytes.fromhex(self._resources[inside][ALIGNMENT:])
                if kind.dtype in SUB_BYTE:
                    return split_bytes(stored, kind.dtype, math.prod(kind.sizes)).reshape(kind.sizes)
                return np.frombuffer(stored, dtype).reshape(kind.sizes)
            if inside.startswith('"0x'):
                values = np.frombuffer(bytes.fromhex(inside[3:-1]), dtype)
                return np.broadcast_to(
                    values[0] if values.size == 1 else values.reshape(kind.sizes), kind.sizes
                )
            literal = inside.replace("true", "True").replace("false", "False")
            if special := re.fullmatch(r"0x([0-9A-F]+)", literal):  # an infinity or NaN
                bits = int(special[1], 16).to_bytes(dtype.itemsize, "little")
                return np.broadcast_to(np.frombuffer(bits, dtype)[0], kind.sizes)
            return np.broadcast_to(np.array(ast.literal_eval(literal)).astype(dtype), kind.sizes)
        except (KeyError, TypeError, ValueError, SyntaxError) as error:
            raise BundleError(f"a constant of the program is written in an unknown way: {error}") from error


def read_program(asset: Path) -> ProgramText:
    """The program of an asset; BundleError for one that Core AI cannot read."""
    opened = open_asset(asset)
    try:
        return ProgramText(str(opened.program))
    except RuntimeError as error:
        raise BundleError(f"Core AI cannot read {asset}: {error}; export it again") from error


def _graphs(text: str) -> Iterator[Graph]:
    begun: re.Match[str] | None = None
    operations: list[Operation] = []
    constants: dict[str, Operation] = {}
    for line in text.splitlines():
        if match := _GRAPH.match(line):
            begun, operations, constants = match, [], {}
        elif begun is not None and line == "  }":
            inputs, _, behind = begun[3].partition(") -> ")
            outputs, _, attributes = behind.partition(" attributes ")
            ports = _ports(inputs), _ports(outputs)
            declared = "".join(_DECLARED.findall(attributes))  # others are gone from a saved program
            yield Graph(begun[2], begun[1] is not None, *ports, tuple(operations), declared)
            begun = None
        elif begun is not None and (match := _OPERATION.match(line)):
            operations.append(_with_parts(_operation(match), constants))
            if operations[-1].kind == CONSTANT:
                constants[operations[-1].name] = operations[-1]


def _ports(text: str) -> dict[str, Type]:
    return {name: _type(kind) for kind, name in _PORT.findall(text)}


def _operation(match: re.Match[str]) -> Operation:
    name, kind, rest = match[1] or "", match[2].removeprefix("decomposable."), match[3]
    head, _, signature = rest.rpartition(" : ")
    before, arrow, after = signature.rpartition("->")
    if not arrow:
        before, arrow, after = signature.rpartition(" to ")
    takes, makes = ([_type(one) for one in _TYPE.findall(part)] for part in (before, after))
    reads = () if kind == CONSTANT else tuple(_VALUE.findall(head))
    return Operation(kind, name, reads, tuple(takes), tuple(makes), head)


def _with_parts(operation: Operation, constants: Mapping[str, Operation]) -> Operation:
    """An operation that unpacks constants, with these; any other as it is."""
    if operation.kind not in UNPACK or not all(name in constants for name in operation.reads):
        return operation
    return replace(operation, parts=tuple(constants[name] for name in operation.reads))


def _type(text: str) -> Type:
    *sizes, dtype = text.split(",")[0].split("x")
    return Type(tuple(None if size == "?" else int(size) for size in sizes), dtype)
