"""Reads a device file: TOML with a `[[device]]` table for each, whose keys are the options of its kind. No torch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from morvit_deploy.errors import ConfigError, MorvitError
from morvit_deploy.exporters.options import Option, check_choice, check_number
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.measuring.fleet.device import check_kind, check_names, kinds

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TABLE, NAME, KIND = "device", "name", "kind"
MAX_BYTES = 1_000_000
_WORDS = {bool: "true or false", int: "a whole number", str: "text", Path: "a path"}

Keys = Callable[[str], Mapping[str, Option]]  # of a kind: the options that it has, by their key


@dataclass(frozen=True)
class Entry:
    """A table of the file; `values` by the options' names, paths relative to the file's folder resolved."""

    name: str
    kind: str
    values: Mapping[str, Any]


def read_entries(path: Path, keys: Keys) -> list[Entry]:
    """The devices in the file's order; ConfigError or TargetError, which name the file and the device."""
    found = _parsed(path)
    _check_keys(found, [TABLE], str(path))
    tables = found.get(TABLE, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"{path}: got one table `[{TABLE}]`, expected `[[{TABLE}]]` for each device")
    entries = [
        _entry(table, f"{path}: device {number}", path, keys) for number, table in enumerate(tables, 1)
    ]
    check_names((entry.name for entry in entries), path)
    return entries


def _parsed(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"--device-file: cannot read {path}: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: got more than {MAX_BYTES:,} bytes, expected a device file")
    try:
        found: dict[str, Any] = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:  # of TOML and of UTF-8
        what = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConfigError(
            f"{path} is no TOML ({what}); write a table `[[{TABLE}]]` for each device"
        ) from None
    return found


def _entry(table: Mapping[str, Any], where: str, path: Path, keys: Keys) -> Entry:
    name = table.get(NAME)
    if not isinstance(name, str):
        raise ConfigError(f'{where}: got name {name!r}, expected `name = "…"`, which its rows are called by')
    where = f"{path}: device {name!r}"
    kind = table.get(KIND)
    if not isinstance(kind, str):
        raise ConfigError(f"{where}: got kind {kind!r}, expected one of {', '.join(kinds())}")
    try:
        check_kind(kind)
    except MorvitError as error:
        raise type(error)(f"{where}: {error}") from None
    known = keys(kind)
    own = {key: value for key, value in table.items() if key not in (NAME, KIND)}
    _check_keys(own, known, f"{where} ({kind})", also=_other_kinds(keys))
    values = {
        known[key].name: _value(known[key], value, f"{where}: {key}", path) for key, value in own.items()
    }
    return Entry(name, kind, values)


def _other_kinds(keys: Keys) -> dict[str, str]:
    """Key to the kinds that have it."""
    having: dict[str, list[str]] = {}
    for kind in kinds():
        for key in keys(kind):
            having.setdefault(key, []).append(kind)
    return {key: " or ".join(names) for key, names in having.items()}


def _check_keys(
    given: Iterable[str], known: Iterable[str], where: str, also: Mapping[str, str] | None = None
) -> None:
    known = list(known)
    for key in given:
        if key in known:
            continue
        if also and key in also:
            raise ConfigError(f"{where}: {key!r} is for devices of kind {also[key]}; leave it out")
        hint = did_you_mean(key, known) or f"; the keys are {', '.join(known)}"
        raise ConfigError(f"{where}: got unknown key {key!r}{hint}")


def _value(option: Option, given: object, where: str, path: Path) -> Any:
    """As the dataclass of the option takes it; ConfigError for another type, or beyond the option's limits."""
    if get_origin(option.kind) is tuple:
        if not isinstance(given, list):
            raise ConfigError(f"{where}: got {given!r}, expected a list, as in [{_quoted(given)}]")
        return tuple(_single(get_args(option.kind)[0], one, where, path) for one in given)
    if option.choices:
        check_choice(_named(option, where), given)
        return given
    value = _single(option.kind, given, where, path)
    check_number(_named(option, where), value)
    return value


def _single(kind: type, given: object, where: str, path: Path) -> Any:
    if type(given) is not (str if kind is Path else kind):  # a bool is an int to isinstance
        raise ConfigError(f"{where}: got {given!r}, expected {_WORDS[kind]}")
    if isinstance(given, str) and not given.isprintable():  # a command line cannot hold all of them
        raise ConfigError(f"{where}: got {given!r}, expected text without control characters")
    return path.parent / Path(str(given)).expanduser() if kind is Path else given


def _named(option: Option, name: str) -> Option:
    return Option(name, option.kind, option.optional, option.choices, option.default, option.help)


def _quoted(given: object) -> str:
    return f'"{given}"' if isinstance(given, str) else str(given)
