"""Compute units: the names that the command line takes, and Core ML's own. No torch, no coremltools."""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.errors import TargetError

UNITS = {"all": "ALL", "cpu_ne": "CPU_AND_NE", "cpu_gpu": "CPU_AND_GPU", "cpu": "CPU_ONLY"}
COMPARE = "compare"  # all of them, in turn
NEURAL_ENGINE = ("all", "cpu_ne")  # choices that let the Neural Engine take part


def chosen_units(words: Sequence[str]) -> tuple[str, ...]:
    """Names of UNITS, each once, in the order said; every one when none is said, or for `compare`."""
    unknown = [word for word in words if word not in (*UNITS, COMPARE)]
    if unknown:
        raise TargetError(
            f"--compute-units: got {', '.join(unknown)}, expected {', '.join(UNITS)}, or {COMPARE} for all of them"
        )
    return tuple(UNITS) if not words or COMPARE in words else tuple(dict.fromkeys(words))
