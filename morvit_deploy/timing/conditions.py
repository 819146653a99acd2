"""Measurement conditions of this machine: hardware, load, clocks. No torch."""

from __future__ import annotations

import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil

from morvit_deploy.agent.host.processor import Usage
from morvit_deploy.machine.this import this_machine, versions

_LISTEN_S = 0.5
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def read_conditions() -> dict[str, Any]:
    """Machine, versions, date and current load; what cannot be read is None."""
    load = os.getloadavg() if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": this_machine(),
        "versions": versions(),
        "load_average_before": list(load) if load else None,  # 1, 5 and 15 minutes
        "cpu_used_before_percent": psutil.cpu_percent(_LISTEN_S),  # of all cores, by others
        "cpu_mhz": _frequency(),
        "cpu_governor": _governor(),
    }


def usage(pid: int) -> Usage:
    """Processor time of the machine and of a process; a process that has ended counts as idle."""
    now = psutil.cpu_times()
    idle_s = now.idle + getattr(now, "iowait", 0.0) + getattr(now, "guest", 0.0)  # guest is in user too
    try:
        own = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return Usage(time.monotonic(), sum(now) - idle_s, 0.0)
    return Usage(time.monotonic(), sum(now) - idle_s, own.user + own.system)


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
