"""Measurement conditions of the device: a table of readers, called by name before and after.

A reader takes no arguments and returns plain JSON; what cannot be read is None. Both calls are in one process, so a
reader can start counting (energy, throttling) at the first and report at the second. Add a board as a line in
READERS.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from morvit_deploy.agent.host.machine import board, machine, text_of
from morvit_deploy.agent.host.processor import usage
from morvit_deploy.agent.jetson import System, Watch, describe, read_state

_LISTEN_S = 0.5
_CPU = Path("/sys/devices/system/cpu")
_THERMAL = Path("/sys/class/thermal")


def read(names: Sequence[str]) -> dict[str, Any]:
    """Result of each named reader; KeyError for an unknown name."""
    return {name: READERS[name]() for name in names}


def linux() -> dict[str, Any]:
    """Machine, load, clocks, governor and temperatures of any Linux board."""
    before = usage()
    time.sleep(_LISTEN_S)
    used = before.others_percent(usage())
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "machine": machine(),
        "board": board() or None,
        "load_average_before": list(load) if load else None,  # 1, 5 and 15 minutes
        "cpu_used_before_percent": used,
        "cpu_mhz": _clocks(),
        "cpu_governor": _shared("scaling_governor"),
        "temperatures_c": _temperatures(),
    }


def _clocks() -> dict[str, Any] | None:
    """Mean clock now and the highest allowed, MHz; of each core's own clock where they differ."""
    now = [float(khz) / 1e3 for khz in _of_cores("scaling_cur_freq")]
    highest = [float(khz) / 1e3 for khz in _of_cores("cpuinfo_max_freq")]
    if not now:
        return None
    return {"current": sum(now) / len(now), "max": max(highest, default=max(now)), "each": now}


def _shared(name: str) -> str | None:
    """The value that all cores share, or all different values."""
    return ", ".join(dict.fromkeys(_of_cores(name))) or None


def _of_cores(name: str) -> list[str]:
    found = (text_of(path) for path in sorted(_CPU.glob(f"cpu[0-9]*/cpufreq/{name}")))
    return [text for text in found if text]


def _temperatures() -> dict[str, float] | None:
    """Zone to degrees; a second zone of the same type gets its number."""
    found: dict[str, float] = {}
    for zone in sorted(_THERMAL.glob("thermal_zone*")):
        name, millidegrees = text_of(zone / "type") or zone.name, text_of(zone / "temp")
        if millidegrees.lstrip("-").isdigit():
            found[f"{name} {zone.name}" if name in found else name] = int(millidegrees) / 1e3
    return found or None


class JetsonReader:
    """A Jetson's conditions: the first call returns all and starts reading power, the next one returns the energy.

    Blocks that are `counting` in between are summed by label.
    """

    def __init__(self) -> None:
        self._watch: Watch | None = None

    def __call__(self) -> dict[str, Any]:
        """First: `describe`. Then: `read_state`, with `seen`, `energy` by label, and the `power` that was read."""
        if self._watch is not None:
            watch = self._watch
            self.stop()
            energy = {label: watch.energy(label) for label in watch.labels}
            more = {"seen": watch.seen(), "energy": energy, "power": watch.raw()}
            return {**read_state(watch.system), **more}
        system = System()
        found = describe(system)
        if found["jetson"] is not None:
            self._watch = Watch(system)
            self._watch.__enter__()  # begun and ended by different requests
        return found

    def stop(self) -> None:
        """Stop reading power; may be called again."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.__exit__(None, None, None)


JETSON = JetsonReader()
READERS: dict[str, Callable[[], dict[str, Any]]] = {"linux": linux, "jetson": JETSON}


@contextlib.contextmanager
def counting(label: str | None, images: int) -> Iterator[None]:
    """Count the energy of the enclosed work under a label, if power is read; with None it is not counted."""
    watch = JETSON._watch
    if label is None or watch is None:
        yield
        return
    with watch.block(images, label):
        yield


def stop() -> None:
    """Stop readers that are still running."""
    JETSON.stop()
