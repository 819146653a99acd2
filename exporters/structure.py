"""What every proof reports of the written files, and the checks that targets share. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.routings.schedules import last_step_is_cls_alone


@dataclass
class Structure:
    """Properties of the written files; a target leaves the defaults of those that it cannot read."""

    macs: dict[str, int]  # one image, for each bucket
    nodes: int = 0
    operators: dict[str, int] = field(default_factory=dict)  # number of each
    block_applications: dict[str, int] = field(default_factory=dict)  # the same in every bucket
    weight_bytes: int = 0
    file_bytes: int = 0
    violations: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {"proved": not self.violations, **asdict(self)}


def block_applications(uses: Mapping[str, int]) -> dict[str, int]:
    """How often each block is applied, from the products with its last layer's weight."""
    last = ".fc2.weight"
    return {name.removesuffix(last): times for name, times in uses.items() if name.endswith(last)}


def threshold_violations(
    found: set[float], manifest: Manifest, kind: type[np.floating[Any]] = np.float32
) -> list[str]:
    """Router logits are compared with the plan's thresholds, rounded to `kind`, and with nothing else."""
    thresholds = manifest.plan.thresholds or ()
    reached = thresholds[:-1] if last_step_is_cls_alone(manifest.config) else thresholds
    needed, allowed = ({float(kind(t)) for t in some if t is not None} for some in (reached, thresholds))
    if needed <= found <= allowed:
        return []
    return [f"router logits are compared with {sorted(found)}, the plan's thresholds are {sorted(allowed)}"]


def table_violations(found: Sequence[NDArray[Any]], plan: Plan, who: str) -> list[str]:
    """One of the constants is the plan's dispatch table: upper bounds for thresholds, capacities otherwise."""
    rows: Iterable[Any] = [bucket.capacity for bucket in plan.buckets]
    if plan.mode == "threshold":
        rows = [bucket.upto for bucket in plan.buckets[:-1]]
    table = np.array(rows)
    if any(np.array_equal(array.reshape(-1), table.reshape(-1)) for array in found):
        return []
    return [f"{who} chooses by {[array.tolist() for array in found]}, the plan says {table.tolist()}"]
