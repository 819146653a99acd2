"""A profile: the time of each step by kind of node, and what bounds it on this machine. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from morvit_deploy.measuring.profiling.kinds import ATTENTION, KINDS, PRODUCTS

if TYPE_CHECKING:
    from morvit_deploy.measuring.profiling.nodes import Node  # reads graphs with onnx

MEMORY, CACHES, BY_PRODUCTS, SMALL, NONE = (
    "memory",
    "caches",
    "products",
    "small operators",
    "no single limit",
)
ROUND_OFF = 1e-9  # of sums of some hundred numbers
HALF = 0.5  # of the time, or of what the machine can: less than that bounds nothing
SHORT = 0.1  # share of the nodes that may take less than the profiler's part
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
    """What bounds a step, and the shares that say so."""

    by: str  # MEMORY, CACHES, BY_PRODUCTS, SMALL or NONE
    memory: float  # of the machine's bytes a second
    products: float  # of its products a second
    small: float  # of the step's time: nodes that are neither products nor attention

    @property
    def words(self) -> str:
        """As a sentence without its subject."""
        memory, products, small = percent(self.memory), percent(self.products), percent(self.small)
        return {
            MEMORY: f"bound by memory, at {memory} of what this machine can",
            CACHES: f"bound by weights from the caches, at {memory} of what its memory can",
            BY_PRODUCTS: f"bound by products, at {products} of what this machine can",
            SMALL: f"bound by small operators, {small} of its time",
            NONE: f"no single limit: memory at {memory}, products at {products}, small operators {small} of its time",
        }[self.by]

    @property
    def short(self) -> str:
        """The same for a column."""
        shares = {MEMORY: self.memory, CACHES: self.memory, BY_PRODUCTS: self.products, SMALL: self.small}
        return f"{self.by}, {percent(shares[self.by])}" if self.by in shares else self.by


def bound_of(step: StepProfile, machine: Machine) -> Bound:
    """Small operators if they take most of the time; else memory or products, if either is half used."""
    small = 1 - step.share(PRODUCTS) - step.share(ATTENTION)
    memory, products = step.gb_per_s / machine.gb_per_s, step.gmacs_per_s / machine.gmacs_per_s
    if small > HALF:
        by = SMALL
    elif max(memory, products) < HALF:
        by = NONE
    elif memory < products:
        by = BY_PRODUCTS
    else:
        by = CACHES if memory > CACHED else MEMORY
    return Bound(by, memory, products, small)


def percent(share: float) -> str:
    """0.94 -> '94 %'."""
    return f"{100 * share:.0f} %"


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
