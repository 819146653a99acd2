"""MACs of functions, against the plan's."""

from __future__ import annotations

from dataclasses import dataclass

from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.macs import schedule_macs, selection_macs
from morvit_deploy.model.plan import Plan


@dataclass(frozen=True)
class Macs:
    """MACs of one run; `selection` counts products with a one-hot matrix, which select rows."""

    products: int = 0
    selection: int = 0

    def __add__(self, other: Macs) -> Macs:
        return Macs(self.products + other.products, self.selection + other.selection)


def mac_violations(found: Macs, graph: StaticMoRViT, plan: Plan) -> list[str]:
    """A bucket's MACs are the plan's, and selection takes as many as one-hot rows need."""
    violations = []
    unformed = graph.options.unformed_keys
    expected = schedule_macs(
        graph.config,
        graph.capacity,
        routed=graph.routed,
        unformed_keys=unformed,
        output=graph.options.output,
    )
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
    return selection_macs(
        graph.config,
        graph.capacity,
        plan.thresholds,
        with_depth,
        sorts=graph.sorts,
        output=graph.options.output,
    )
