"""What machine this is: processor, cores, instruction sets, memory, library versions. No torch is imported."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from morvit_deploy.dependencies import installed
from morvit_deploy.errors import TargetError

LIBRARIES = ("morvit-deploy", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy", "pillow")
CROWD = 4  # threads a core beyond which a request is a slip of the keyboard
_ISA_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
)


@dataclass(frozen=True)
class Machine:
    """The conditions under which something was measured."""

    system: str
    processor: str
    cores: int  # that this process may use
    memory_gib: float
    instruction_sets: tuple[str, ...]
    python: str

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self)


def this_machine() -> Machine:
    """Read from the operating system; unknown parts are named so."""
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=_cpuinfo("model name") or platform.processor() or "unknown",
        cores=available_cores(),
        memory_gib=round(psutil.virtual_memory().total / 2**30, 1),
        instruction_sets=tuple(flag for flag in _ISA_FLAGS if flag in _cpu_flags()),
        python=platform.python_version(),
    )


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def checked_threads(asked: int | None) -> int:
    """`asked`, or every core there is; TargetError for more than CROWD threads a core."""
    cores = available_cores()
    if asked is not None and not 1 <= asked <= CROWD * cores:
        raise TargetError(
            f"got {asked} threads, expected 1 to {CROWD * cores}: this process may use {cores} cores"
        )
    return asked or cores


def versions(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Installed versions of `names`; those absent are left out."""
    return {name: version for name in names if (version := installed(name)) is not None}


def memory_mib() -> dict[str, float]:
    """This process: resident now, resident peak, and anonymous (not backed by a file), in MiB.

    Anonymous is what the process itself costs; resident also counts mapped weights that the kernel may drop.
    Linux only for the last two; elsewhere they are left out.
    """
    out = {"resident": psutil.Process().memory_info().rss / 2**20}
    status = _fields(Path("/proc/self/status"))
    if "VmHWM" in status:
        out["peak"] = status["VmHWM"] / 1024
    smaps = _fields(Path("/proc/self/smaps_rollup"))
    if "Anonymous" in smaps:
        out["anonymous"] = smaps["Anonymous"] / 1024
    return out


def _fields(path: Path) -> dict[str, float]:
    """`Name:  123 kB` lines of a proc file; empty where there is none."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {words[0].rstrip(":"): float(words[1]) for words in pairs if len(words) == 3 and words[2] == "kB"}


def _cpuinfo(field: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""


def _cpu_flags() -> set[str]:
    return set((_cpuinfo("flags") or _cpuinfo("Features")).split())
