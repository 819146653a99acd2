"""Describes this machine: processor, cores, instruction sets, memory, library versions. No torch."""

from __future__ import annotations

from typing import Any

import psutil

from morvit_deploy.agent import runtimes
from morvit_deploy.agent.host import machine
from morvit_deploy.agent.host.machine import available_cores
from morvit_deploy.machine.agent_errors import own_errors
from morvit_deploy.machine.dependencies import installed

LIBRARIES = ("morvit-deploy", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy", "pillow")


def this_machine() -> dict[str, Any]:
    """System, processor, cores, memory, instruction sets and Python; unknown parts are "unknown"."""
    return machine.machine() | {"memory_gib": round(psutil.virtual_memory().total / 2**30, 1)}


def checked_threads(wanted: int | None) -> int:
    """`wanted`, or one for each core; TargetError for far more threads than cores."""
    with own_errors():
        return runtimes.checked_threads(wanted, available_cores())


def versions(names: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Installed versions of `names`; those absent are left out."""
    return {name: version for name in names if (version := installed(name)) is not None}


def memory_mib() -> dict[str, float]:
    """This process: resident now, resident peak, and anonymous (not backed by a file), in MiB.

    Anonymous is what the process itself costs; resident also counts mapped weights that the kernel may drop.
    Linux only for the last two; elsewhere they are left out.
    """
    return {"resident": psutil.Process().memory_info().rss / 2**20} | machine.memory_mib()
