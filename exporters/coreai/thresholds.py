"""Thresholds and dispatch table of a Core AI program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.coreai.printed.program import Graph, Operation, ProgramText
from morvit_deploy.exporters.functions.names import STEM
from morvit_deploy.exporters.structure import table_violations, threshold_violations

GREATER = ("greater", "broadcasting_greater")


def plan_violations(program: ProgramText, manifest: Manifest) -> list[str]:
    """Thresholds and dispatch table are the plan's."""
    plan = manifest.plan
    violations: list[str] = []
    if plan.thresholds is not None:
        violations += threshold_violations(_thresholds(program), manifest, kind_of(manifest))
    if plan.adaptive:
        tables = [program.array(constant) for constant in _compared([program.graphs[STEM]], read=1)]
        violations += table_violations(tables, plan, "the stem")
    return violations


def kind_of(manifest: Manifest) -> type[np.floating[Any]]:
    """The type of the program's floating-point constants."""
    return np.float16 if manifest.precision == "fp16" else np.float32


def _thresholds(program: ProgramText) -> set[float]:
    """The numbers that router logits are compared with: `z >= t` is written as `not (t > z)`."""
    constants = _compared(program.graphs.values(), read=0)
    values = (program.array(constant) for constant in constants if constant.makes[0].dtype.startswith("f"))
    return {float(value.reshape(-1)[0]) for value in values if value.size == 1}


def _compared(graphs: Iterable[Graph], read: int) -> list[Operation]:
    """The constants that comparisons read as their first or second operand."""
    found = (
        graph.constant(op.reads[read]) for graph in graphs for op in graph.operations if op.kind in GREATER
    )
    return [constant for constant in found if constant is not None]
