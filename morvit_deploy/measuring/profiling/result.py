"""A profile: the time of a bundle by step of the model and by kind of node. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from morvit_deploy.measuring.profiling.bounds import Machine, StepProfile, bound_of, percent
from morvit_deploy.measuring.profiling.kinds import KINDS

if TYPE_CHECKING:
    from morvit_deploy.measuring.profiling.nodes import Node  # reads graphs with onnx

ROUND_OFF = 1e-9  # of sums of some hundred numbers
SHORT = 0.1  # share of the nodes that may take less than the profiler's part
SLOWED = 0.25  # share by which the profiler may slow a run before shares are doubtful
UNKNOWN = 0.02  # share of the time in nodes of no known step before a warning


@dataclass(frozen=True)
class Profile:
    """Where the time of a bundle goes; times in ms of one run of a batch.

    The profiler gathers what it writes of a node while it times the node. If the sum of all nodes is longer than a
    run without it, the same time is taken off every node, at most that of the shortest, and the rest is scaled, so
    that all add up to that run.
    """

    bucket: str
    batch: int
    runs: int  # profiled
    latency_ms: float  # median without the profiler, in turn with the profiled runs
    profiled_ms: float  # median with it
    nodes_ms: float  # sum of all nodes, as the profiler measured them
    overhead_us: float  # taken off every node
    scale: float  # factor on what is left
    steps: tuple[StepProfile, ...]
    unknown_ms: float  # in nodes of no known step
    unknown_nodes: int
    machine: Machine

    @property
    def slowdown(self) -> float:
        """By how much the profiler slows a run: 0.1 for a tenth."""
        return self.profiled_ms / self.latency_ms - 1

    @property
    def between_ms(self) -> float:
        """Latency outside of all nodes: the call, scheduling, and waking threads; 0 where it cannot be told apart."""
        known = sum(step.total_ms for step in self.steps) + self.unknown_ms
        left = self.latency_ms - known
        return left if left > ROUND_OFF * self.latency_ms else 0.0

    @property
    def whole(self) -> StepProfile:
        """All steps as one."""
        ms = {kind: sum(step.ms.get(kind, 0.0) for step in self.steps) for kind in KINDS}
        nodes, macs, size = (
            sum(getattr(step, name) for step in self.steps) for name in ("nodes", "macs", "weight_bytes")
        )
        return StepProfile("all", ms, nodes, macs, size)

    def warnings(self, name: str) -> list[str]:
        """What makes the profile doubtful."""
        found = []
        if self.slowdown > SLOWED:
            found.append(
                f"{name}: the profiler slows it by {percent(self.slowdown)}, so its shares are estimates; larger "
                "models are slowed less"
            )
        if self.unknown_ms > UNKNOWN * self.latency_ms:
            share = percent(self.unknown_ms / self.latency_ms)
            found.append(f"{name}: {share} of its time is in {self.unknown_nodes} nodes of no known step")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        names = (
            *("bucket", "batch", "runs", "latency_ms", "profiled_ms", "slowdown", "nodes_ms"),
            *("overhead_us", "scale", "between_ms", "unknown_ms", "unknown_nodes"),
        )
        whole = self.whole
        return {
            **{name: getattr(self, name) for name in names},
            "machine": self.machine.as_dict(),
            "shares": {kind: ms / self.latency_ms for kind, ms in whole.ms.items()},
            "steps": [_step_as_dict(step, self.machine) for step in self.steps],
        }


def _step_as_dict(step: StepProfile, machine: Machine) -> dict[str, Any]:
    return {
        "step": step.name,
        "ms": step.total_ms,
        "ms_by_kind": dict(step.ms),
        **{
            name: getattr(step, name) for name in ("nodes", "macs", "weight_bytes", "gmacs_per_s", "gb_per_s")
        },
        "bound": asdict(bound := bound_of(step, machine)) | {"words": bound.words},
    }


def without_overhead(times: Mapping[str, float], latency_ms: float) -> tuple[dict[str, float], float, float]:
    """Times of nodes that add up to at most `latency_ms`; what was taken off each, in ms, and the factor on the rest.

    The profiler's part is the same for every node, so it is no longer than the shortest nodes.
    """
    if not times:
        return {}, 0.0, 1.0
    excess = max(0.0, sum(times.values()) - latency_ms)
    short = sorted(times.values())[int(SHORT * len(times))]
    off = min(excess / len(times), short)
    left = {name: max(0.0, ms - off) for name, ms in times.items()}
    total = sum(left.values())
    factor = min(1.0, latency_ms / total) if total else 1.0
    return {name: factor * ms for name, ms in left.items()}, off, factor


def profiled_steps(
    names: Sequence[str], macs: Sequence[int], nodes: Sequence[tuple[Node, float]]
) -> tuple[StepProfile, ...]:
    """Steps from their nodes, each with its milliseconds."""
    found = []
    for number, name in enumerate(names):
        own = [(node, ms) for node, ms in nodes if node.step == number]
        by_kind = {kind: sum(ms for node, ms in own if node.kind == kind) for kind in KINDS}
        size = sum(node.weight_bytes for node, _ in own)
        found.append(StepProfile(name, by_kind, len(own), macs[number], size))
    return tuple(found)
