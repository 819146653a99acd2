"""The agent's folder on the device, removed when the agent ends, or by a later agent.

Its name, `morvit-agent-PID-BOOT-random`, identifies the owner, even where the disk is full.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from morvit_deploy.agent.host.machine import text_of

MARK = "morvit-agent-"
ARCHIVE = "agent.pyz"
_BOOT_DIGITS = 8
_TRIES, _PAUSE_S = 10, 0.1


def boot_id() -> str:
    """Identifier of this boot of the system; "unknown" where the kernel does not report it."""
    return text_of("/proc/sys/kernel/random/boot_id").replace("-", "")[:_BOOT_DIGITS] or "unknown"


def sweep(own: Path) -> int:
    """Remove the folders beside `own` whose agents are gone; returns how many there were."""
    stale = [path for path in own.parent.glob(f"{MARK}*") if path.name != own.name and _is_stale(path)]
    for path in stale:
        shutil.rmtree(str(path), ignore_errors=True)
    return len(stale)


def remove(own: Path) -> None:
    """Remove the agent's folder; what cannot be removed is left to the next agent."""
    for _ in range(_TRIES):  # a process that is just ending may still write into it
        shutil.rmtree(str(own), ignore_errors=True)
        if not own.exists():
            return
        time.sleep(_PAUSE_S)


def _is_stale(path: Path) -> bool:
    """Is it a folder of this user whose agent has ended: another boot, no such process, or another program?"""
    parts = path.name[len(MARK) :].split("-")
    if len(parts) < 3 or not parts[0].isdigit() or path.is_symlink() or not path.is_dir():
        return False
    if path.stat().st_uid != os.getuid():
        return False
    if parts[1] != boot_id():
        return True
    command = text_of(f"/proc/{parts[0]}/cmdline")
    return path.name not in command and "morvit_loader" not in command  # the loader does not name its folder
