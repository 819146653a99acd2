"""The power mode (nvpmodel): the current one, all of them, and the fastest."""

from __future__ import annotations

import re
from typing import Any

from .system import System


def parse_query(text: str) -> dict[str, Any] | None:
    """`nvpmodel -q`, plain or verbose: the line `NV Power Mode: MAXN`, then the mode's number on its own."""
    found = re.search(r"NV Power Mode:[ \t]*(\S+)[ \t]*(?:\r?\n[ \t]*(\d+)[ \t]*(?:\r?\n|$))?", text)
    if not found:
        return None
    return {"name": found.group(1), "number": int(found.group(2)) if found.group(2) else None}


def parse_modes(text: str | None) -> dict[int, str]:
    """`/etc/nvpmodel.conf`: number -> name, from its `< POWER_MODEL ID=2 NAME=MAXN_SUPER >` lines."""
    lines = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=([^\s>]+)\s*>", text or "")
    return {int(number): name for number, name in lines}


def parse_status(text: str | None) -> int | None:
    """`/var/lib/nvpmodel/status`: `pmode:0002 fmode:quiet` -> 2."""
    found = re.search(r"pmode:\s*(\d+)", text or "")
    return int(found.group(1)) if found else None


def fastest(modes: dict[int, str]) -> int | None:
    """Number of the mode without a power budget, MAXN or MAXN_SUPER. On an Orin Nano Super it is not 0."""
    unlimited = [number for number, name in modes.items() if name.upper().startswith("MAXN")]
    return max(unlimited, key=lambda number: "SUPER" in modes[number].upper(), default=None)


def power_mode(system: System) -> dict[str, Any]:
    """Name and number of the current mode, all modes, the fastest one, and where this was read."""
    modes = parse_modes(system.read("/etc/nvpmodel.conf"))
    mode = parse_query(system.run("nvpmodel", "-q") or "")
    source = "nvpmodel -q"
    if mode is None:
        number = parse_status(system.read("/var/lib/nvpmodel/status"))
        mode = None if number is None else {"name": modes.get(number), "number": number}
        source = "/var/lib/nvpmodel/status"
    if mode is None:
        mode, source = {"name": None, "number": None}, "nvpmodel is missing or refused, and left no status"
    if mode["number"] is None:
        mode["number"] = next((number for number, name in modes.items() if name == mode["name"]), None)
    top = fastest(modes)
    names = {"fastest": top, "fastest_name": None if top is None else modes[top]}
    return {**mode, "modes": {str(number): name for number, name in modes.items()}, **names, "source": source}


def is_fastest(mode: dict[str, Any]) -> bool | None:
    """None when the machine does not report its mode."""
    if mode["name"] is None and mode["number"] is None:
        return None
    if mode["fastest"] is not None and mode["number"] is not None:
        return bool(mode["number"] == mode["fastest"])
    return str(mode["name"]).upper().startswith("MAXN")
