"""The conditions of a measurement on a Jetson before and after it, and what makes the figures doubtful."""

from __future__ import annotations

from typing import Any

from .clocks import differences, lock_command, read_clocks
from .heat import read_heat, throttled
from .identity import identity, is_jetson
from .power_mode import is_fastest, power_mode
from .system import System

WARMED_C = 15.0  # a chip that warmed so much leaks more and may have been cooler than it stays in service


def describe(system: System | None = None) -> dict[str, Any]:
    """All conditions, ready for JSON. On another machine `jetson` is None, with the reason."""
    system = system or System()
    if not is_jetson(system):
        return {"jetson": None, "reason": "neither /etc/nv_tegra_release nor the device tree names a Jetson"}
    return {"jetson": identity(system), **read_state(system)}


def read_state(system: System | None = None) -> dict[str, Any]:
    """What a benchmark may change: power mode, clocks, heat. Read it before and after."""
    system = system or System()
    return {"power_mode": power_mode(system), "clocks": read_clocks(system), "heat": read_heat(system)}


def warnings(before: dict[str, Any], after: dict[str, Any] | None = None) -> list[str]:
    """What makes the figures doubtful; before a measurement, pass `before` alone."""
    if before["jetson"] is None:
        return []
    found = _not_at_the_top(before)
    if after is not None:
        found += [f"during the measurement {change}" for change in _moved(before, after)]
        found += [f"throttled: {sentence}" for sentence in throttled(before["heat"], after["heat"])]
        found += _warmed(before["heat"], after["heat"])
    else:
        found += [f"throttled already: {name} holds the clocks down" for name in before["heat"]["throttling"]]
    return found


def hints(before: dict[str, Any], energy: dict[str, Any] | None = None) -> list[str]:
    """What to install, with the command."""
    if before["jetson"] is None:
        return []
    machine, found = before["jetson"], []
    if machine["tensorrt"] is None:
        found.append("TensorRT is missing: sudo apt-get install nvidia-jetpack")
    elif not machine["tensorrt_python"]:
        found.append("TensorRT is there, its Python module is not: sudo apt-get install python3-libnvinfer")
    if energy is not None and energy["source"] is None:
        found.append(
            "power is read from jetson-stats when its service runs: sudo pip3 install -U jetson-stats, then reboot"
        )
    return found


def _not_at_the_top(state: dict[str, Any]) -> list[str]:
    mode, locked = state["power_mode"], state["clocks"]["locked"]
    command = lock_command(mode)
    if is_fastest(mode) is False:
        limit = f"the power mode is {mode['name'] or mode['number']}, not {mode['fastest_name'] or 'MAXN'}"
        rest = ", and the clocks are not locked" if locked is False else ""
        return [f"{limit}{rest}: figures are lower than the board can do; {command}"]
    if locked is False:
        return [f"the clocks are not locked, so latencies vary with the load; lock them with: {command}"]
    if locked is None:
        return [f"whether the clocks are locked cannot be read here; to be sure: {command}"]
    return []


def _moved(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    old, new = before["power_mode"], after["power_mode"]
    if (old["name"], old["number"]) != (new["name"], new["number"]):
        found.append(f"the power mode changed from {old['name']} to {new['name']}")
    changes = differences(before["clocks"], after["clocks"])
    return found + [f"the clocks' range changed, {change}" for change in changes]


def _warmed(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    first, last = before["hottest_c"], after["hottest_c"]
    if first is None or last is None or last - first <= WARMED_C:
        return []
    return [
        f"the chip warmed from {first:.0f} to {last:.0f} °C: warm up for longer to measure the speed of sustained use"
    ]
