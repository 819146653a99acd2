"""Measures a package on a Mac or an iPhone, for the command line and the emitted project. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import Any, Protocol

from morvit_deploy.errors import MorvitError, ParityError
from morvit_deploy.exporters.coreml.sdk.bundle import Package
from morvit_deploy.exporters.functions.devices import MODELS, Item, ProjectTexts
from morvit_deploy.measuring.apple.checklist import Phone, demand
from morvit_deploy.measuring.apple.conditions import read_conditions, warnings_about
from morvit_deploy.measuring.apple.dispatching import Backend
from morvit_deploy.measuring.apple.goldens import Goldens
from morvit_deploy.measuring.apple.measure import CoreMl, measure_units
from morvit_deploy.measuring.apple.outcome import AppleResult
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.timing.loop import Amount, Stages, parts_of

DEVICES = ("mac", "iphone")
# fewer on a phone, where each run takes a second to transfer
AMOUNTS = {"mac": Amount(50, 10, 3, starts=1), "iphone": Amount(10, 3, 1, starts=1)}
# in the conditions: why, and the exit status; of failed units, by their name
CUT, FAILED = "ended_early", "failed_units"


@dataclass(frozen=True)
class Wish:
    """What to measure; None: the device's default of AMOUNTS."""

    device: str
    units: tuple[str, ...]
    runs: int | None = None
    blocks: int | None = None
    warmup: int | None = None
    phone: str | None = None  # name or UDID
    team: str | None = None  # Apple developer team that signs the runner app

    @property
    def amount(self) -> Amount:
        """With defaults filled in; TargetError for an amount that is too small."""
        given = {name: getattr(self, name) for name in ("runs", "blocks", "warmup")}
        return replace(
            AMOUNTS[self.device], **{name: value for name, value in given.items() if value is not None}
        )


class AppleRuntime(Protocol):
    """One of Apple's runtimes."""

    project: ProjectTexts
    expected: str  # place of `open(folder, manifest, bucket) -> Runner`: what a device is compared with

    def needed(
        self, package: Package | None, device: str, wanted: str | None
    ) -> tuple[list[Item], Phone | None]:
        """What `device` needs to measure a package, or without one, the newest; and the phone, if there is one."""

    def opened(
        self, package: Package, phone: Phone | None, team: str | None
    ) -> AbstractContextManager[Backend]:
        """Its functions, here or on a phone."""


def runtime_of(target: str) -> AppleRuntime:
    """The runtime of a target of MODELS."""
    runtime: AppleRuntime = load(MODELS[target].runtime)
    return runtime


def load(place: str) -> Any:
    """What `module:name` is, imported on use."""
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def look(package: Package | str | None, wish: Wish, way_out: str) -> Phone | None:
    """Check that the device can be measured from here; the TargetError lists every requirement.

    With the name of a target instead of a package, before one is opened: what its newest needs.
    """
    known = package if isinstance(package, Package) else None
    target = package.target if isinstance(package, Package) else package or ""
    runtime = runtime_of(target if target in MODELS else next(iter(MODELS)))
    items, phone = runtime.needed(known, wish.device, wish.phone)
    demand(items, wish.device, way_out)
    return phone


def run_bench(
    package: Package,
    goldens: Goldens,
    wish: Wish,
    phone: Phone | None,
    *,
    inputs: str,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> BenchResult:
    """Measure. ParityError when all compute units return wrong logits, TargetError when all fail.

    The conditions record those that failed, and a device that is lost midway.
    """
    stages = Stages(tell, progress, parts_of(len(wish.units), wish.amount))
    with backend_for(package, wish, phone) as backend:
        return measure_on(CoreMl(package, backend, goldens, stages), wish, phone, inputs=inputs)


def measure_on(device: CoreMl, wish: Wish, phone: Phone | None, *, inputs: str) -> BenchResult:
    """The same on a device whose backend is open."""
    goldens, amount = device.goldens, wish.amount
    conditions = read_conditions(wish.device) | {
        "blocks": amount.blocks,
        "warmup_runs_per_block": amount.warmup,
        "runs_per_block": amount.runs,
        "starts": amount.starts,
        "inputs": inputs,
        "mix": goldens.shares_from,
        "compute_units": list(wish.units),
        **({"phone": asdict(phone)} if phone else {}),
    }
    found = measure_units(device, wish.units, amount, inputs_digest(goldens))
    warnings = warnings_about(conditions, found.measured)
    if found.failed:
        conditions[FAILED] = {units: _recorded(error) for units, error in found.failed.items()}
        failures = (f"compute units {units} failed: {error}" for units, error in found.failed.items())
        warnings = (*failures, *warnings)
    if found.cut is not None:
        conditions[CUT] = _recorded(found.cut)
        warnings = (f"the measurement ended early, the results are incomplete: {found.cut}", *warnings)
    return AppleResult(wish.device, found.measured, conditions, warnings)


def exit_status(result: BenchResult) -> int:
    """Of a measurement that ended early; else 1 if some compute units return wrong logits, and 0."""
    if cut := result.conditions.get(CUT):
        return int(cut["exit_status"])
    statuses = [one["exit_status"] for one in result.conditions.get(FAILED, {}).values()]
    return int(ParityError.exit_status in statuses)  # units that this device lacks are no failed check


def _recorded(error: MorvitError) -> dict[str, Any]:
    return {"why": str(error), "exit_status": error.exit_status}


def backend_for(package: Package, wish: Wish, phone: Phone | None) -> AbstractContextManager[Backend]:
    """The package's runtime, here or on the phone; imports its library."""
    return runtime_of(package.target).opened(package, phone, wish.team)


def inputs_digest(goldens: Goldens) -> str:
    """Short sha256 of all pictures, which identifies them in a report."""
    digest = hashlib.sha256()
    for golden in goldens.buckets.values():
        digest.update(golden.pixels.tobytes())
    return digest.hexdigest()[:16]
