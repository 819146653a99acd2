"""Measurement conditions of a Mac or an iPhone. Standard library only: it also runs in the emitted project."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from morvit_deploy.measuring.apple.outcome import AppleMeasured
from morvit_deploy.timing.result import warnings_about as usual_warnings

LIBRARIES = ("morvit-deploy", "coremltools", "numpy", "pillow")
TIMED = {
    "mac": (
        "warm runs: Core ML's own prediction time of each function, Python and the conversion of arrays excluded; "
        "load: Core ML's own load time of every function, compiling of the package excluded; again: the "
        "compiled package opened once more, timed from outside"
    ),
    "iphone": (
        "warm runs: the phone's own prediction time of each function, transfer excluded; about a second passes "
        "between two runs, so its clocks may fall: these are single pictures, not a stream; "
        "pictures are sent as arrays"
    ),
}
THERMAL = (
    "the thermal state cannot be read; a warm device is slower: let it cool down, and compare the blocks"
)
FIRST = "a first load is cold only if the system has not specialised this package before"


def read_conditions(device: str) -> dict[str, Any]:
    """The same keys as for other devices; what cannot be read is None."""
    load = list(os.getloadavg()) if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "load_average_before": load,
        "cpu_used_before_percent": None,
        "cpu_mhz": None,
        "cpu_governor": None,
        "threads": None,  # Core ML's own
        "power": power(_printed("pmset", "-g", "batt"), _printed("pmset", "-g")),
        "thermal_state": None,
        "timed": TIMED[device],
    }


def power(battery: str | None, settings: str | None) -> dict[str, Any] | None:
    """From what `pmset -g batt` and `pmset -g` print: source, and low power mode on or off; None: not readable."""
    if battery is None or settings is None:
        return None
    source = re.search(r"drawing from '([^']+)'", battery)
    mode = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", settings, re.M)
    return {"source": source[1] if source else None, "low_power_mode": mode[1] == "1" if mode else None}


def warnings_about(conditions: dict[str, Any], measured: Sequence[AppleMeasured]) -> tuple[str, ...]:
    """What makes the figures doubtful."""
    found = [THERMAL, FIRST, *usual_warnings(conditions, measured)]
    known = conditions.get("power")
    if known and known["low_power_mode"]:
        found.append("low power mode is on: turn it off and measure again")
    if known and known["source"] == "Battery Power":
        found.append("this Mac runs on battery: connect it to power and measure again")
    found += [
        f"{one.name}: {one.not_placed}; its operations are not placed" for one in measured if one.not_placed
    ]
    return tuple(found)


def _machine() -> dict[str, Any]:
    memory, macos = _printed("sysctl", "-n", "hw.memsize"), platform.mac_ver()[0]
    brand = _printed("sysctl", "-n", "machdep.cpu.brand_string")
    return {
        "system": f"macOS {macos} {platform.machine()}" if macos else platform.platform(),
        "processor": brand or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory) / 2**30, 1) if memory and memory.isdigit() else None,
        "instruction_sets": [],
        "python": platform.python_version(),
    }


def _printed(*command: str) -> str | None:
    """Output of a macOS tool; None where it is missing, as on other systems."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
