"""Checks functions against the plan: probes, thresholds and the dispatch table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.coreml.mil.function import Function
from morvit_deploy.exporters.coreml.mil.types import Array
from morvit_deploy.exporters.functions.names import plain_name


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
