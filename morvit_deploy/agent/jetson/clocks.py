"""Clocks of CPU, GPU and memory (EMC): their range, where they are now, and whether they are locked."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from typing import Any

from .system import System

_RANGE = r"MinFreq=(\d+)\s+MaxFreq=(\d+)\s+CurrentFreq=(\d+)"
_SHOWN = re.compile(
    rf"^[ \t]*(cpu\d+:|GPU|gpu-gpc-\d+|EMC)[ \t]+(.*?){_RANGE}(?:[ \t]+FreqOverride=(\d+))?", re.M
)
_EMC = "/sys/kernel/debug/bpmp/debug/clk/emc"
# 17000000.gpu (JetPack 6), .ga10b (5, Orin), .gv11b (Xavier), .gp10b (TX2), gpu-gpc-0 (Thor)
_GPU = ("*.gpu", "*.ga10b", "*.gv11b", "*.gp10b", "gpu-gpc-*", "gpu.0")
_MEMORY = ("bwmgr", "*emc*")


def read_clocks(system: System) -> dict[str, Any]:
    """`units`: each with its range in MHz and whether it is locked; `locked` of them all; `source`.

    `jetson_clocks --show` reports most but requires root on many releases; /sys is read then.
    """
    shown = parse_show(system.run("jetson_clocks", "--show") or "")
    if any(unit["kind"] == "gpu" for unit in shown):
        return {"units": shown, "locked": all_locked(shown), "source": "jetson_clocks --show"}
    units = _cpu(system) + _devfreq(system, _GPU, "gpu") + _memory(system)
    return {"units": units, "locked": all_locked(units), "source": "/sys"}


def parse_show(text: str) -> list[dict[str, Any]]:
    """`jetson_clocks --show` of JetPack 4 to 7: CPU in kHz, GPU and EMC in Hz. Cores that are off are left out."""
    units = []
    for name, between, low, high, now, override in _SHOWN.findall(text):
        if "Online=0" in between:
            continue
        kind = "cpu" if name.startswith("cpu") else "emc" if name == "EMC" else "gpu"
        scale = 1e3 if kind == "cpu" else 1e6
        mhz = (int(low) / scale, int(high) / scale, int(now) / scale)
        units.append(_unit(kind, name.rstrip(":"), mhz, held=override == "1" if override else None))
    return units


def all_locked(units: list[dict[str, Any]]) -> bool | None:
    """Are CPU, GPU and, where it is known, memory locked? None when CPU or GPU cannot be read."""
    if any(unit["locked"] is False for unit in units):
        return False
    return True if {"cpu", "gpu"} <= {unit["kind"] for unit in units if unit["locked"]} else None


def lock_command(mode: dict[str, Any] | None) -> str:
    """The command that locks the clocks at the maximum of the fastest power mode."""
    fastest = (mode or {}).get("fastest")
    number = 0 if fastest is None else fastest  # MAXN is 0 where the modes cannot be read
    return f"sudo nvpmodel -m {number} && sudo jetson_clocks"


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Changed clock ranges, as in `cpu0: 729.6-2201.6 MHz became 729.6-1728.0 MHz`."""
    earlier = {unit["name"]: unit for unit in before["units"]}
    changed = []
    for unit in after["units"]:
        was = earlier.get(unit["name"])
        if was is not None and _range(was) != _range(unit):
            changed.append(f"{unit['name']}: {_range(was)} became {_range(unit)}")
    return changed


def _unit(
    kind: str, name: str, mhz: tuple[float, float, float], held: bool | None = None, floor_moves: bool = True
) -> dict[str, Any]:
    """`held`: a flag that keeps it at its rate; `floor_moves`: does locking raise the minimum, too?"""
    low, high, now = mhz
    locked: bool | None = low == high if floor_moves else None
    if held is not None:
        locked = (held and now == high) or bool(locked)
    return {"kind": kind, "name": name, "min_mhz": low, "max_mhz": high, "now_mhz": now, "locked": locked}


def _range(unit: dict[str, Any]) -> str:
    return f"{unit['min_mhz']:g}-{unit['max_mhz']:g} MHz"


def _cpu(system: System) -> list[dict[str, Any]]:
    units = []
    for policy in system.names("/sys/devices/system/cpu/cpufreq/policy*"):
        khz = _three(system, policy, "scaling_{}_freq")
        if khz is not None:
            unit = _unit("cpu", policy.rsplit("/", 1)[1], (khz[0] / 1e3, khz[1] / 1e3, khz[2] / 1e3))
            units.append({**unit, "governor": system.read(f"{policy}/scaling_governor")})
    return units


def _devfreq(system: System, wanted: tuple[str, ...], kind: str) -> list[dict[str, Any]]:
    units = []
    for folder in system.names("/sys/class/devfreq/*"):
        name = folder.rsplit("/", 1)[1]
        hz = _three(system, folder, "{}_freq") if any(fnmatch(name, pattern) for pattern in wanted) else None
        if hz is not None:
            units.append(_unit(kind, name, (hz[0] / 1e6, hz[1] / 1e6, hz[2] / 1e6)))
    return units


def _memory(system: System) -> list[dict[str, Any]]:
    hz = _three(system, _EMC, "{}_rate", now="rate")
    if hz is None:
        return _devfreq(system, _MEMORY, "emc")
    held = system.number(
        f"{_EMC}/mrq_rate_locked"
    )  # the range here is the hardware's: only this flag shows a lock
    flag = None if held is None else held == 1
    return [_unit("emc", "EMC", (hz[0] / 1e6, hz[1] / 1e6, hz[2] / 1e6), flag, floor_moves=False)]


def _three(system: System, folder: str, names: str, now: str = "") -> tuple[int, int, int] | None:
    low, high = (system.number(f"{folder}/{names.format(part)}") for part in ("min", "max"))
    current = system.number(f"{folder}/{now or names.format('cur')}")
    return None if low is None or high is None or current is None else (low, high, current)
