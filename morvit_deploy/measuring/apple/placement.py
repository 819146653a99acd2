"""Where Core ML plans to run each operation of a function: counts and shares of cost from its compute plan.

Pure functions of what `mac.py` reads from an MLComputePlan. No torch, no coremltools.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

NE, GPU, CPU, NOT_TOLD = "Neural Engine", "GPU", "CPU", "not told"
DEVICES = (NE, GPU, CPU, NOT_TOLD)


@dataclass(frozen=True)
class PlacedOp:
    """One operation of a compute plan."""

    operator: str
    output: str
    preferred: str  # of DEVICES
    supported: tuple[str, ...]
    cost: float | None  # estimated, of the whole function, 0 … 1


@dataclass(frozen=True)
class Left:
    """Operations of one operator that the Neural Engine does not run."""

    operator: str
    ops: int
    cost: float  # share of the function's
    to: tuple[str, ...]
    could: bool  # does the Neural Engine support all of them, and Core ML prefers another device?


@dataclass(frozen=True)
class Placement:
    """One function under one choice of compute units."""

    function: str
    ops: dict[str, int]  # by device
    cost: dict[str, float]  # share of the estimated cost, by device
    left: tuple[Left, ...]  # the most expensive first

    def as_dict(self) -> dict[str, Any]:
        return {
            "ops": self.ops,
            "cost": self.cost,
            "left_neural_engine": [asdict(left) for left in self.left],
        }


def place(function: str, ops: Sequence[PlacedOp]) -> Placement:
    """Sum up a function's operations."""
    whole = math.fsum(op.cost or 0.0 for op in ops) or 1.0
    by = {device: [op for op in ops if op.preferred == device] for device in DEVICES}
    cost = {device: math.fsum(op.cost or 0.0 for op in own) / whole for device, own in by.items()}
    away = [op for op in ops if op.preferred in (GPU, CPU)]
    names = dict.fromkeys(op.operator for op in away)
    left = [_left(name, [op for op in away if op.operator == name], whole) for name in names]
    ordered = sorted(left, key=lambda one: (-one.cost, -one.ops, one.operator))
    return Placement(function, {device: len(own) for device, own in by.items()}, cost, tuple(ordered))


def _left(operator: str, ops: Sequence[PlacedOp], whole: float) -> Left:
    cost = math.fsum(op.cost or 0.0 for op in ops) / whole
    to = tuple(dict.fromkeys(op.preferred for op in ops))
    return Left(operator, len(ops), cost, to, all(NE in op.supported for op in ops))
