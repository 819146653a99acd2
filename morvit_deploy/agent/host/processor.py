"""Processor time of the machine and of one process, from /proc."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from morvit_deploy.agent.host.machine import text_of

_IDLE = (3, 4)  # fields of /proc/stat: idle, iowait
_COUNTED = 8  # further ones, guest time, are in the first two already
_UTIME = 11  # fields of /proc/PID/stat after the name: user time, then system time


@dataclass(frozen=True)
class Usage:
    """Seconds of processor time since some start: of all cores, and of one process."""

    at_s: float
    busy_s: float
    own_s: float

    def others_percent(self, later: Usage) -> float:
        """Share of all cores that neither idled nor served the process, from this reading to a later one."""
        others_s = (later.busy_s - self.busy_s) - (later.own_s - self.own_s)
        cores_s = (later.at_s - self.at_s) * (os.cpu_count() or 1)
        return max(0.0, 100 * others_s / cores_s) if cores_s > 0 else 0.0


def usage(pid: int | None = None) -> Usage:
    """Read the clocks; without a process, or when it has just died, nothing is its own."""
    ticks = os.sysconf("SC_CLK_TCK")
    fields = [int(word) for word in text_of("/proc/stat").split("\n")[0].split()[1:][:_COUNTED]]
    busy = sum(fields) - sum(fields[i] for i in _IDLE if i < len(fields))
    own = text_of(f"/proc/{pid}/stat").rpartition(")")[2].split() if pid is not None else []
    own_ticks = sum(int(word) for word in own[_UTIME : _UTIME + 2])
    return Usage(time.monotonic(), busy / ticks, own_ticks / ticks)
