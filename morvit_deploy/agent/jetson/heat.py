"""Temperatures, and what lowered the clocks: heat or over-current."""

from __future__ import annotations

import re
from typing import Any

from .system import System

OFF_C = -40.0  # a sensor whose part of the chip is off reads −256 °C
# NVIDIA Jetson Linux Developer Guide, Jetson Orin: SOCTHERM's over-current events
OVER_CURRENT = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}


def read_heat(system: System) -> dict[str, Any]:
    """Temperatures in °C and the counters that only grow; `throttling` lists what holds the clocks down now."""
    temperatures: dict[str, float] = {}
    silent = []
    for zone in system.names("/sys/class/thermal/thermal_zone*"):
        name = (system.read(f"{zone}/type") or zone.rsplit("/", 1)[1]).replace("-thermal", "")
        milli = system.number(f"{zone}/temp")
        if milli is None:
            silent.append(name)  # cv0 … cv2 of Orin, and Thor's GPU while it is gated, return EAGAIN
        elif milli / 1000 > OFF_C and not name.startswith("PMIC"):  # PMIC-Die reads 100 or 50, always
            temperatures[name] = milli / 1000
    return {
        "temperatures_c": temperatures,
        "hottest_c": max(temperatures.values(), default=None),
        "silent": silent,
        "over_current": _over_current(system),
        "heat_trips": _trips(system),
        "throttling": _active(system),
    }


def grown(before: dict[str, Any], after: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Increase of the over-current and heat-trip counters; those that did not grow are left out."""
    changes = {}
    for counter in ("over_current", "heat_trips"):
        pairs = {name: count - before[counter].get(name, 0) for name, count in after[counter].items()}
        changes[counter] = {name: by for name, by in pairs.items() if by > 0}
    return changes


def throttled(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Sentences on what lowered the clocks between two readings, or holds them down at the later one."""
    by = grown(before, after)
    found = [
        f"{OVER_CURRENT.get(name, name)} ({name}): {count} events, each lowers the clocks for a moment"
        for name, count in by["over_current"].items()
    ]
    found += [f"heat: {name} passed its limit {count} times" for name, count in by["heat_trips"].items()]
    return found + [f"{name} holds the clocks down" for name in after["throttling"]]


def _over_current(system: System) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in system.names("/sys/class/hwmon/hwmon*/oc*_event_cnt"):
        count = system.number(name)
        if count is not None:
            key = name.rsplit("/", 1)[1].replace("_event_cnt", "")
            counts[key] = counts.get(key, 0) + count
    return counts


def _trips(system: System) -> dict[str, int]:
    counts = {}
    for name in system.names("/sys/devices/platform/*-throttle-alert/thermal_trip_event"):
        count = system.number(name)
        if count is not None:
            counts[name.split("/")[-2].replace("-throttle-alert", "")] = count
    return counts


def _active(system: System) -> list[str]:
    """Cooling devices named …-throttle-alert leave state 0 while the chip is being throttled."""
    devices = system.names("/sys/class/thermal/cooling_device*")
    kinds = {device: system.read(f"{device}/type") or "" for device in devices}
    alerts = [device for device, kind in kinds.items() if re.search(r"throttle-alert$", kind)]
    return sorted(kinds[device] for device in alerts if (system.number(f"{device}/cur_state") or 0) > 0)
