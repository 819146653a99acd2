"""A step of a profile, and what bounds it on this machine. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from morvit_deploy.measuring.profiling.kinds import ATTENTION, PRODUCTS

MEMORY, CACHES, BY_PRODUCTS, SMALL, NONE = (
    "memory",
    "caches",
    "products",
    "small operators",
    "no single limit",
)
HALF = 0.5  # of the time, or of what the machine can: less than that bounds nothing
CACHED = 1.1  # × the memory's rate: faster than that, weights were not read from memory


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
