"""The one reader of JSON: text that two programs could read differently, or that exhausts one, is refused.

Python's own reader takes the last of two equal keys, NaN, numbers of any length, and any depth until it overflows.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morvit_deploy.errors import ConfigError, MorvitError, listed

JSON = "a JSON file"
MAX_BYTES = 100_000_000  # an index of 100,000 tensors has 10 MB
MAX_DEPTH = 100  # objects and lists inside one another; our own formats have at most 8
MAX_DIGITS = 40  # of a whole number; any float holds it
SHOWN = 12  # problems that a message lists
_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
}
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_DEEP = f"got lists or objects nested too deeply, expected at most {MAX_DEPTH} levels"


@dataclass(frozen=True)
class _Wrong:
    """Stands for a value that is refused; its place is known only when the whole text is parsed."""

    problem: str


def read_json(path: Path, error: type[MorvitError] = ConfigError, *, advice: str = "") -> Any:
    """Read a JSON file. Raises `error`, which names the file, what was found and what was expected.

    `advice` says what to do about a file that is not JSON. OSError is left to the caller.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    return parse_json(content, path, error, advice=advice)


def read_object(path: Path, error: type[MorvitError] = ConfigError, *, advice: str = "") -> dict[str, Any]:
    """Read a JSON file that contains an object; raises `error` for anything else, also for what cannot be read."""
    try:
        found = read_json(path, error, advice=advice)
    except OSError as reason:
        raise error(f"cannot read {path}: {reason.strerror or reason}{_ending(advice)}") from None
    if not isinstance(found, dict):
        raise error(f"{path}: got {_KINDS[type(found)]}, expected a JSON object{_ending(advice)}")
    return found


def parse_json(
    content: bytes | str,
    source: object,
    error: type[MorvitError] = ConfigError,
    *,
    what: str = JSON,
    advice: str = "",
) -> Any:
    """Parse JSON text in UTF-8. Raises `error`: that `source` is not `what`, what was found and what was expected.

    Text that is no JSON at all is called so, whatever was expected in it.
    """
    try:
        found = json.loads(
            _decoded(content),
            object_pairs_hook=_object,
            parse_int=_whole,
            parse_float=_finite,
            parse_constant=lambda name: _Wrong(f"got {name}, expected a finite number"),
        )
        problems = list(_problems(found))
    except RecursionError:
        problem = _DEEP
    except ValueError as refused:
        problem = str(refused)
    else:
        if not problems:
            return found
        raise error(f"{source} is not {what}:\n{listed(problems, SHOWN)}{_ending(advice)}")
    expected = "" if what == JSON else f"; expected {what}"
    raise error(f"{source} is not {JSON}: {problem}{expected}{_ending(advice)}")


def _decoded(content: bytes | str) -> str:
    if not content.strip():
        raise ValueError(f"it is empty ({len(content)} bytes)")
    if isinstance(content, str):
        return content
    if len(content) > MAX_BYTES:
        raise ValueError(f"got more than {MAX_BYTES:,} bytes, expected fewer")
    if content.startswith(_WIDE) or b"\0" in content[:4]:
        raise ValueError("got UTF-16 or binary data, expected UTF-8; save it as UTF-8")
    if content.startswith(codecs.BOM_UTF8):
        raise ValueError("got a byte-order mark, expected UTF-8 without one; save it without BOM")
    try:
        return content.decode()
    except UnicodeDecodeError as wrong:
        byte = content[wrong.start]
        raise ValueError(f"got byte 0x{byte:02x} at offset {wrong.start}, expected UTF-8") from None


def _object(pairs: list[tuple[str, Any]]) -> Any:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            return _Wrong(f"got the key {_short(key)} twice in one object, expected each key once")
        found[key] = value
    return found


def _whole(digits: str) -> Any:
    if len(digits) > MAX_DIGITS:
        return _Wrong(f"got a number of {len(digits):,} digits, expected at most {MAX_DIGITS}")
    return int(digits)


def _finite(text: str) -> Any:
    value = float(text)
    return value if math.isfinite(value) else _Wrong(f"got {_short(text)}, expected a finite number")


def _problems(found: Any) -> Iterable[str]:
    """Yield what is wrong with each value, with its place; ValueError for values nested too deeply. No recursion."""
    level, depth = [("", found)], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(_DEEP)
        for place, value in level:
            problem = value.problem if isinstance(value, _Wrong) else _text_problem(value)
            if problem:
                yield f"{place}: {problem}" if place else problem
        level = [
            (f"{place}.{name}".lstrip("."), inner) for place, value in level for name, inner in _inside(value)
        ]


def _text_problem(value: Any) -> str:
    texts = value if isinstance(value, dict) else [value] if isinstance(value, str) else []
    for text in texts:
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            return f"got half of a surrogate pair in {_short(text)}, expected Unicode text"
    return ""


def _inside(value: Any) -> Iterable[tuple[object, Any]]:
    return value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()


def _short(text: str) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def _ending(advice: str) -> str:
    return f"; {advice}" if advice else ""
