"""Checks functions against the plan: MACs, probes, thresholds and the dispatch table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.coreml.mil.function import Function
from morvit_deploy.exporters.coreml.mil.structure import Macs
from morvit_deploy.exporters.coreml.mil.types import Array
from morvit_deploy.exporters.functions.names import plain_name
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.macs import schedule_macs, selection_macs
from morvit_deploy.model.plan import Plan


def mac_violations(found: Macs, graph: StaticMoRViT, plan: Plan) -> list[str]:
    """A bucket's MACs are the plan's, and selection takes as many as one-hot rows need."""
    violations = []
    expected = schedule_macs(graph.config, graph.capacity, routed=graph.routed)
    if found.products != expected:
        violations.append(f"the graph does {found.products:,} MACs an image, the plan says {expected:,}")
    selecting = _selection_macs(graph, plan)
    if found.selection != selecting:
        violations.append(f"selecting tokens takes {found.selection:,} MACs, expected {selecting:,}")
    return violations


def _selection_macs(graph: StaticMoRViT, plan: Plan) -> int:
    """MACs that one-hot selection adds; 0 where tokens are gathered."""
    if not graph.options.style.one_hot:
        return 0
    with_depth = graph.options.with_depth
    return selection_macs(graph.config, graph.capacity, plan.thresholds, with_depth, sorts=graph.sorts)


def probe_violations(
    functions: Iterable[Function], bucket: str, probes: Iterable[str], manifest: Manifest
) -> list[str]:
    """The manifest lists the static graph's probes that a bucket's functions compute, and no others."""
    named = {plain_name(name) for name in probes}
    inside = {name for function in functions for name in function.types}
    listed = {plain_name(name) for name in manifest.probes_of(bucket)}
    listed |= {plain_name(port.name) for port in manifest.carried} & named
    differing = sorted((named & inside) ^ listed)
    return [f"the manifest's probes and the graph's values differ in {differing}"] if differing else []


def compared_numbers(functions: Iterable[Function]) -> set[float]:
    """The numbers that router logits are compared with."""
    values = (value for function in functions for value in compared(function, "greater_equal"))
    return {float(value) for value in values if value.size == 1 and value.dtype.kind == "f"}


def compared(function: Function, comparison: str) -> list[Array]:
    """The constants that a function's comparisons of one kind compare with."""
    values = (function.constant(op, "y") for op in function.operations if op.type == comparison)
    return [value for value in values if isinstance(value, np.ndarray)]
