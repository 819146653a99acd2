"""Reads the engines that `engines.json` lists, and checks whether this machine may load them. No TensorRT."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

RECORD, FORMAT = "engines.json", "morvit-engines/1"
AGAIN = "build them on this machine with build.py"
AMPERE = 8.0  # compute capability from which hardware-compatible engines run


class EngineError(Exception):
    """Engines are missing, damaged, or made for another machine."""


def read_engines(folder: Path) -> dict[str, Any]:
    """The record of the engines in a folder. Raises EngineError when there is none or it is of another format."""
    try:
        record = json.loads((folder / RECORD).read_bytes())
    except OSError:
        raise EngineError(f"{folder} holds no engines yet (no {RECORD}); {AGAIN}") from None
    except ValueError:
        raise EngineError(f"{folder / RECORD} is not JSON; {AGAIN}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise EngineError(f"{folder / RECORD} is not of format {FORMAT!r}; {AGAIN}")
    return record


def read_engine(folder: Path, record: dict[str, Any], name: str) -> bytes:
    """An engine's bytes, compared with their hash."""
    found = _entry(record, name)
    path = folder / str(found["engine"])
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}; {AGAIN}") from None
    if hashlib.sha256(content).hexdigest() != found["sha256"]:
        raise EngineError(f"{path} is not what was built (sha256 differs); {AGAIN}")
    return content


def has_host_code(record: dict[str, Any], name: str) -> bool:
    """Does the engine bring code for the CPU? A version-compatible one holds the runtime that it was built with."""
    return bool(_entry(record, name)["version_compatible"])


def why_refused(record: dict[str, Any], flavor: str, version: str, capability: str | None) -> str | None:
    """Why this runtime must not load the engines on this GPU; None when it may.

    `version` is the runtime's `__version__`, `capability` the GPU's, as `8.7`; None when it is not known. TensorRT
    itself returns None for a wrong engine, and a line in its log.
    """
    if record["flavor"] != flavor:
        return f"the engines are for {record['flavor']}, this runtime is {flavor}; {AGAIN}"
    for engine in record["engines"]:
        reason = _version(record, engine, version) or _architecture(record, engine, capability)
        if reason is not None:
            return f"{engine['engine']}: {reason}; {AGAIN}"
    return None


def _entry(record: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] | None = next((one for one in record["engines"] if one["name"] == name), None)
    if found is None:
        built = ", ".join(engine["name"] for engine in record["engines"]) or "none"
        raise EngineError(f"engine {name!r} was not built, there is: {built}; {AGAIN}")
    return found


def _version(record: dict[str, Any], engine: dict[str, Any], version: str) -> str | None:
    built = record["tensorrt"]
    if built == version:
        return None
    if not engine["version_compatible"]:
        return f"built with version {built}, this is {version}"
    if _numbers(built)[:1] != _numbers(version)[:1] or _numbers(version) < _numbers(built):
        return (
            f"built with version {built} for it and newer ones of the same major version, this is {version}"
        )
    return None


def _architecture(record: dict[str, Any], engine: dict[str, Any], capability: str | None) -> str | None:
    if capability is None:
        return None
    named = engine["compute_capability"]
    if record["flavor"] == "rtx":  # without a name it builds for all GPUs that it supports
        here = "SM" + capability.replace(".", "")
        return None if not named or here in named else f"built for {', '.join(named)}, this GPU is {here}"
    built_on = (record["device"] or {}).get("compute_capability")
    if built_on in (None, capability) or (engine["hardware_compatible"] and float(capability) >= AMPERE):
        return None
    return f"built for compute capability {built_on} ({record['device']['name']}), this GPU has {capability}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
