"""Describes this machine, from Python and /proc."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

ISA_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm")


def machine() -> dict[str, Any]:
    """System, processor, cores, memory, instruction sets and Python; unknown parts are "unknown"."""
    return {
        "system": system(),
        "processor": processor(),
        "cores": available_cores(),
        "memory_gib": round(kilobytes(Path("/proc/meminfo")).get("MemTotal", 0.0) / 2**20, 1),
        "instruction_sets": list(instruction_sets()),
        "python": platform.python_version(),
    }


def system() -> str:
    """Name, kernel and architecture."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def processor() -> str:
    """The processor's name; ARM kernels do not report it, the board's device tree does."""
    return _cpuinfo("model name") or board() or platform.processor() or "unknown"


def board() -> str:
    """The board's name in the device tree, such as `Raspberry Pi 5 Model B Rev 1.0`; empty where there is none."""
    return text_of("/proc/device-tree/model").rstrip("\0")


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def instruction_sets() -> tuple[str, ...]:
    """Those of ISA_FLAGS that the processor has."""
    found = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return tuple(flag for flag in ISA_FLAGS if flag in found)


def memory_mib() -> dict[str, float]:
    """This process on Linux: resident now, resident peak, and anonymous (not backed by a file), in MiB.

    Anonymous is what the process itself costs; resident also counts mapped weights that the kernel may drop.
    What cannot be read is left out.
    """
    status, rollup = (kilobytes(Path(f"/proc/self/{name}")) for name in ("status", "smaps_rollup"))
    sizes = {
        "resident": status.get("VmRSS"),
        "peak": status.get("VmHWM"),
        "anonymous": rollup.get("Anonymous"),
    }
    return {name: size / 1024 for name, size in sizes.items() if size is not None}


def kilobytes(path: Path) -> dict[str, float]:
    """`Name:  123 kB` lines of a proc file; empty where there is none."""
    pairs = (line.split() for line in text_of(path).splitlines())
    return {words[0].rstrip(":"): float(words[1]) for words in pairs if len(words) == 3 and words[2] == "kB"}


def text_of(path: str | Path) -> str:
    """A system file without surrounding blanks; empty where it cannot be read."""
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""


def _cpuinfo(field: str) -> str:
    for line in text_of("/proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
