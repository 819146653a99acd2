"""Under which conditions a measurement was made, and what makes them doubtful. No torch."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from morvit_deploy.agent.host.processor import Usage
from morvit_deploy.machine.this import this_machine, versions
from morvit_deploy.measuring.core.results import DRIFT, Measured

BUSY_LOAD = 0.5  # load average per core before the start
BUSY_PERCENT = 10  # of all cores, used by others during the warm runs
_LISTEN_S = 0.5
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def read_conditions() -> dict[str, Any]:
    """Machine, versions, date, and how busy the machine is now; what cannot be read is None."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": this_machine().as_dict(),
        "versions": versions(),
        "load_average_before": list(load) if load else None,  # 1, 5 and 15 minutes
        "cpu_used_before_percent": psutil.cpu_percent(_LISTEN_S),  # of all cores, by others
        "cpu_mhz": _frequency(),
        "cpu_governor": _governor(),
    }


def usage(pid: int) -> Usage:
    """Read the clocks; a process that has just died counts as idle."""
    now = psutil.cpu_times()
    idle_s = now.idle + getattr(now, "iowait", 0.0) + getattr(now, "guest", 0.0)  # guest is in user too
    try:
        own = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return Usage(time.monotonic(), sum(now) - idle_s, 0.0)
    return Usage(time.monotonic(), sum(now) - idle_s, own.user + own.system)


def warnings_about(conditions: dict[str, Any], measured: Sequence[Measured]) -> tuple[str, ...]:
    """What a reader must know before believing the figures."""
    found = []
    load, cores = conditions["load_average_before"], conditions["machine"]["cores"]
    if load and load[0] > BUSY_LOAD * cores:
        found.append(
            f"the machine was busy before the start: load average {load[0]:.2f} over {cores} cores, "
            f"{conditions['cpu_used_before_percent']:.0f} % of the processor in use at that moment"
        )
    others = median(block.others_percent for one in measured for block in one.blocks)
    if others > BUSY_PERCENT:
        found.append(
            f"others used {others:.0f} % of the processor during the warm runs (median over the blocks)"
        )
    found += [
        f"{one.bundle}: a block is {one.drift:.0%} away from the first one; other work or a changing clock is in "
        "these figures"
        for one in measured
        if one.drift > DRIFT
    ]
    return tuple(found)


def _frequency() -> dict[str, float] | None:
    try:
        frequency = psutil.cpu_freq()
    except (OSError, NotImplementedError):  # some virtual machines hide it
        return None
    return {"current": frequency.current, "max": frequency.max} if frequency else None


def _governor() -> str | None:
    try:
        return _GOVERNOR.read_text().strip()
    except OSError:
        return None
