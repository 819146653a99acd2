"""Strategies that damage bytes, JSON documents and arrays."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

FAR = 10**6  # positions are drawn up to it, and taken modulo the length
ODD_NUMBERS = (0, 1, -1, 2, 255, 2**31, 2**63, 10**40, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"))
ODD: tuple[Any, ...] = (
    *ODD_NUMBERS, None, True, False, "", " ", "x", "\0", "../x", "/dev/null", "é" * 300, [], {}, [[]], [None],
    {"a": 1}, ["x"] * 40,
)  # fmt: skip  # a table of values
HEAVY = ("[" * 3000 + "]" * 3000, "9" * 6000, '{"a":' * 2000 + "1" + "}" * 2000, '"' + "x" * 20000 + '"')

position = st.integers(0, FAR)


@st.composite
def bytes_of(draw: st.DrawFn, content: bytes) -> bytes:
    """Content with one to three flipped, overwritten, removed, repeated or inserted parts, or a cut end."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(position) % (len(data) + 1), draw(st.integers(1, 64))
        kind = draw(st.sampled_from(("flip", "write", "remove", "repeat", "insert", "cut", "zero")))
        if kind == "flip" and data:
            data[at % len(data)] ^= 1 << draw(st.integers(0, 7))
        elif kind == "write":
            data[at : at + length] = draw(st.binary(min_size=1, max_size=length))
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=length))
        elif kind == "cut":
            del data[at:]
        else:
            data[at : at + length] = bytes(len(data[at : at + length]))
    return bytes(data)


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value inside a document."""
    items = (
        document.items()
        if isinstance(document, dict)
        else enumerate(document)
        if isinstance(document, list)
        else ()
    )
    for key, value in items:
        yield (*path, key)
        yield from places(value, (*path, key))


def held_at(document: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        document = document[key]
    return document


@st.composite
def edited(draw: st.DrawFn, document: Any) -> Any:
    """A document with one to three values replaced, removed, renamed, swapped or added."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        *path, key = draw(st.sampled_from([*places(document)]))
        holder = held_at(document, tuple(path))
        kind = draw(st.sampled_from(("odd", "odd", "near", "remove", "rename", "text", "copy")))
        value = holder[key]
        if kind == "odd":
            holder[key] = copy.deepcopy(draw(st.sampled_from(ODD)))  # later edits may change it
        elif kind == "near" and type(value) in (int, float):
            holder[key] = draw(st.sampled_from((value + 1, value - 1, value * 2, -value, float(value))))
        elif kind == "remove":
            del holder[key]
        elif kind == "rename" and isinstance(holder, dict):
            holder[draw(st.sampled_from(("x", f"{key}s", key.upper(), "")))] = holder.pop(key)
        elif kind == "text":
            holder[key] = str(value)
        else:
            holder[key] = copy.deepcopy(held_at(document, draw(st.sampled_from([*places(document)]))))
        if not [*places(document)]:
            break
    return document


@st.composite
def json_of(draw: st.DrawFn, document: dict[str, Any]) -> bytes:
    """The text of a damaged document: values, repeated keys, heavy nesting, or bytes."""
    kind = draw(
        st.sampled_from(("values", "values", "values", "values", "twice", "heavy", "bytes", "spaces"))
    )
    if kind == "values":
        return json.dumps(draw(edited(document))).encode()
    text = json.dumps(document)
    if kind == "bytes":
        return draw(bytes_of(text.encode()))
    if kind == "spaces":
        return json.dumps(document, indent=draw(st.integers(0, 4)), sort_keys=True).encode()
    key = draw(st.sampled_from(sorted(document)))
    if kind == "twice":
        value = draw(st.sampled_from((document[key], *ODD[:4])))
        return f"{{{json.dumps(key)}: {json.dumps(value)}, {text[1:]}".encode()
    heavy = draw(st.sampled_from(HEAVY))
    return text.replace(
        f"{json.dumps(key)}: {json.dumps(document[key])}", f"{json.dumps(key)}: {heavy}"
    ).encode()


def toml_of(document: dict[str, Any]) -> str:
    """A document as TOML, `key = value` a line; None, for which TOML has no word, as if it had one."""
    return "".join(f"{_toml_key(key)} = {_toml(value)}\n" for key, value in document.items())


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml_key(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, bool)) else str(value)


def _toml_key(key: str) -> str:
    return key if key.isascii() and key.replace("-", "").isalnum() else json.dumps(key, ensure_ascii=False)


def numbers_as_floats(text: str | bytes) -> Any:
    """A JSON document in which 3 equals 3.0, and 10**40 equals 1e40."""
    return json.loads(text, parse_int=float)


def is_read_as(stands: Any, read: Any) -> bool:
    """Whether everything that stands in a document was read; optional fields may be added."""
    if isinstance(stands, dict) and isinstance(read, dict):
        return all(name in read and is_read_as(value, read[name]) for name, value in stands.items())
    if isinstance(stands, list) and isinstance(read, list):
        return len(stands) == len(read) and all(map(is_read_as, stands, read))
    return bool(stands == read)


def repeats_a_key(text: bytes) -> bool:
    """Whether an object in a JSON text has a key twice."""
    found = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found.append(len(items) != len(dict(items)))
        return dict(items)

    json.loads(text, object_pairs_hook=pairs)
    return any(found)


@st.composite
def npz_of(draw: st.DrawFn, arrays: Mapping[str, Any]) -> bytes:
    """An `.npz` file with arrays that are missing, added, recast, reshaped or of other values; or damaged bytes."""
    arrays = dict(arrays)
    for _ in range(draw(st.integers(0, 2))):
        if not arrays:
            break
        name = draw(st.sampled_from(sorted(arrays)))
        kind = draw(st.sampled_from(("remove", "add", "dtype", "shape", "value", "object", "cut", "repeat")))
        array = np.asarray(arrays[name])
        if kind == "remove":
            del arrays[name]
        elif kind == "add":
            arrays[draw(st.sampled_from(("x", "arr_0", "labels", f"{name}s")))] = array
        elif kind == "dtype":
            kinds = ("f2", "f4", "f8", ">f4", "i8", "u1", "c8", "U8", "S3", "?")
            arrays[name] = array.astype(draw(st.sampled_from(kinds)))
        elif kind == "shape":
            shapes = (array.ravel(), array[None], array.T, np.asfortranarray(array), array[..., None])
            arrays[name] = shapes[draw(st.integers(0, len(shapes) - 1))]
        elif kind == "value" and array.size and array.dtype.kind in "fiu":
            changed = array.copy()
            number = draw(st.sampled_from(ODD_NUMBERS))
            with np.errstate(all="ignore"):
                changed.ravel()[draw(position) % array.size] = np.float64(number).astype(array.dtype)
            arrays[name] = changed
        elif kind == "object":
            arrays[name] = np.array([Payload()], dtype=object)
        elif kind == "cut":
            arrays[name] = array[: draw(st.integers(0, 2))] if array.ndim else array
        elif array.ndim:
            arrays[name] = np.concatenate([array, array])
    buffer = io.BytesIO()
    with np.errstate(all="ignore"):
        (np.savez_compressed if draw(st.booleans()) else np.savez)(buffer, **arrays)
    content = buffer.getvalue()
    return draw(bytes_of(content)) if draw(st.integers(0, 2)) == 0 else content


class Payload:
    """Pickled, it creates a file where it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("executed", "w")
