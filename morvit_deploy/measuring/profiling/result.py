"""A profile: the time of each step by kind of node, and what bounds it on this machine. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from morvit_deploy.measuring.profiling.kinds import ATTENTION, KINDS, PRODUCTS

MOSTLY = 0.5  # share of a step's time in nodes that are no products, from which on these bound it
CACHED = 1.1  # × the memory's rate: faster than that, weights were not read from memory
SLOWED = 0.25  # share by which the profiler may slow a run before shares are doubtful
UNKNOWN = 0.02  # share of the time in nodes of no known step before a warning


@dataclass(frozen=True)
class Machine:
    """The machine's own rates, measured in turn with the bundle."""

    gmacs_per_s: float
    products_in: str  # fp32 or int8
    gb_per_s: float
    read_by: str  # the faster way
    read_mib: float  # of weights, each time

    def as_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(frozen=True)
class StepProfile:
    """One step: its time by kind, milliseconds of a run, and its work."""

    name: str
    ms: Mapping[str, float]  # kind to time
    nodes: int
    macs: int
    weight_bytes: int  # that its products read

    @property
    def total_ms(self) -> float:
        return sum(self.ms.values())

    @property
    def gmacs_per_s(self) -> float:
        return self.macs / self.total_ms / 1e6 if self.total_ms else 0.0

    @property
    def gb_per_s(self) -> float:
        return self.weight_bytes / self.total_ms / 1e6 if self.total_ms else 0.0

    def share(self, kind: str) -> float:
        return self.ms.get(kind, 0.0) / self.total_ms if self.total_ms else 0.0


@dataclass(frozen=True)
class Bound:
    """What bounds a step, and how much of the machine's rate it reaches."""

    by: str  # "memory", "caches", "products" or "small operators"
    of_machine: (
        float  # of the rate of memory or products; for small operators, their share of the step's time
    )

    @property
    def words(self) -> str:
        """As a sentence without its subject."""
        if self.by == "small operators":
            return f"bound by small operators, {percent(self.of_machine)} of its time"
        if self.by == "caches":
            return f"bound by weights from the caches, at {self.of_machine:.1f}× what memory can"
        return f"bound by {self.by}, at {percent(self.of_machine)} of what this machine can"

    @property
    def short(self) -> str:
        """The same for a column."""
        reached = f"{self.of_machine:.1f}× memory" if self.by == "caches" else percent(self.of_machine)
        return f"{self.by}, {reached}"


def bound_of(step: StepProfile, machine: Machine) -> Bound:
    """Small operators if they take most of the time; else memory or products, whichever is nearer to its limit."""
    small = 1 - step.share(PRODUCTS) - step.share(ATTENTION)
    if small > MOSTLY:
        return Bound("small operators", small)
    memory, products = step.gb_per_s / machine.gb_per_s, step.gmacs_per_s / machine.gmacs_per_s
    if memory < products:
        return Bound("products", products)
    return Bound("caches" if memory > CACHED else "memory", memory)


def percent(share: float) -> str:
    """0.94 -> '94 %'."""
    return f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Profile:
    """Where the time of a bundle goes; times in ms of one run of a batch.

    `measured` are the profiler's times of nodes. `steps` has them scaled to the latency without the profiler, if
    their sum is longer than that.
    """

    bucket: str
    batch: int
    runs: int  # profiled
    latency_ms: float  # median without the profiler, in turn with the profiled runs
    profiled_ms: float  # median with it
    measured: tuple[StepProfile, ...]
    unknown_ms: float  # in nodes of no known step
    unknown_nodes: int
    machine: Machine

    @property
    def nodes_ms(self) -> float:
        """Sum of all nodes, as the profiler measured them."""
        return sum(step.total_ms for step in self.measured) + self.unknown_ms

    @property
    def slowdown(self) -> float:
        """By how much the profiler slows a run: 0.1 for a tenth."""
        return self.profiled_ms / self.latency_ms - 1

    @property
    def scale(self) -> float:
        """Factor on the profiler's times; 1 where their sum is within the latency."""
        return min(1.0, self.latency_ms / self.nodes_ms) if self.nodes_ms else 1.0

    @property
    def between_ms(self) -> float:
        """Latency outside of all nodes: the call, scheduling, and waking threads."""
        return self.latency_ms - self.nodes_ms * self.scale

    @cached_property
    def steps(self) -> tuple[StepProfile, ...]:
        """With times that add up to the latency, together with `between_ms` and what is unknown."""
        return tuple(
            StepProfile(
                step.name,
                {kind: ms * self.scale for kind, ms in step.ms.items()},
                step.nodes,
                step.macs,
                step.weight_bytes,
            )
            for step in self.measured
        )

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
                f"{name}: the profiler slows it by {percent(self.slowdown)}, mostly its small operators, so their "
                "shares are upper limits"
            )
        if self.unknown_ms > UNKNOWN * self.nodes_ms:
            share = percent(self.unknown_ms / self.nodes_ms)
            found.append(f"{name}: {share} of its time is in {self.unknown_nodes} nodes of no known step")
        return found

    def as_dict(self) -> dict[str, Any]:
        """For JSON; times of steps are scaled, `scale` says by what."""
        names = (
            *("bucket", "batch", "runs", "latency_ms", "profiled_ms", "slowdown", "nodes_ms"),
            *("scale", "between_ms", "unknown_ms", "unknown_nodes"),
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


def profiled_steps(
    names: Sequence[str], macs: Sequence[int], parts: Sequence[tuple[int, str, int, float]]
) -> tuple[StepProfile, ...]:
    """Steps of nodes, each given by the number of its step, its kind, its bytes of weights and its milliseconds."""
    found = []
    for number, name in enumerate(names):
        own = [part for part in parts if part[0] == number]
        ms = {kind: sum(part[3] for part in own if part[1] == kind) for kind in KINDS}
        found.append(StepProfile(name, ms, len(own), macs[number], sum(part[2] for part in own)))
    return tuple(found)
