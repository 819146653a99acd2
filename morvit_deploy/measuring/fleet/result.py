"""The result of a fleet: what each device returned, joined row by row. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.errors import CheckFailed, listed
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.fleet.running import Outcome
from morvit_deploy.report import Report, Shown, numbered
from morvit_deploy.timing.result import Measured, Ratio, ratio_of

FORMAT = "morvit-fleet/1"
MEASURED = "measured"


@dataclass(frozen=True)
class Row:
    """A bundle on a device, or a device without figures; `ratio` is its speed over the device's first bundle."""

    device: str
    bundle: str
    state: str  # measured, or why not, or not to the end
    p50_ms: float | None = None  # of a run of `batch` images
    p90_ms: float | None = None
    batch: int | None = None
    ratio: float | None = None
    images_per_s: float | None = None
    parity: bool | None = None  # did it return the expected logits before it was timed?


@dataclass(frozen=True, repr=False)
class FleetResult(Shown):
    """All devices, in the order that they were given; `interrupted` where Ctrl-C ended it early."""

    bundles: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    interrupted: bool = False

    def __repr__(self) -> str:
        states = ", ".join(f"{one.device.name} {one.reason or MEASURED}" for one in self.outcomes)
        return f"FleetResult({states})"

    @property
    def rows(self) -> list[Row]:
        """A row for each bundle on each device, and one for a device without figures."""
        return [row for outcome in self.outcomes for row in _rows(outcome)]

    @property
    def dropped(self) -> tuple[Outcome, ...]:
        """The devices that were not measured to the end."""
        return tuple(one for one in self.outcomes if not one.complete)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the devices, each with the device's name."""
        measured = [(one.device.name, one.result) for one in self.outcomes if one.result is not None]
        return tuple(f"{name}: {text}" for name, result in measured for text in result.warnings)

    def fastest(self, outcome: Outcome) -> list[Measured]:
        """The fastest bundle of a device, per image, and those that it does not beat beyond the scatter."""
        lanes = comparable(outcome)
        if not lanes:
            return []
        first = min(lanes, key=lambda lane: lane.latency_ms["p50"] / lane.batch)
        return [first, *(lane for lane in lanes if lane is not first and not _beats(first, lane))]

    def check(self) -> None:
        """CheckFailed if a device dropped out."""
        if self.dropped:
            reasons = listed([f"{one.device.name}: {one.reason}" for one in self.dropped])
            raise CheckFailed(
                f"{len(self.dropped)} of {numbered(len(self.outcomes), 'device')} dropped out:\n{reasons}"
            )

    def report(self) -> Report:
        """The conclusion, a picture, the joined table, and each device's conditions."""
        views = import_module("morvit_deploy.measuring.fleet.views")  # by name: views read this module
        shown: Report = views.fleet_report(self)
        return shown

    def as_dict(self) -> dict[str, Any]:
        """The joined rows, and each device with its full result."""
        return {
            "format": FORMAT,
            "bundles": list(self.bundles),
            "interrupted": self.interrupted,
            "rows": [asdict(row) for row in self.rows],
            "devices": [_device(outcome) for outcome in self.outcomes],
        }


def comparable(outcome: Outcome) -> list[Measured]:
    """What stands for each bundle: its runs, or on a GPU the runs of each part with transfers."""
    result = outcome.result
    if result is None:
        return []
    if isinstance(result, BenchResult):
        return [one for one in result.measured if one.blocks]
    return [one for one in result.measured if one.transfers]


def label(lane: Measured) -> str:
    """The bundle's folder, and on a GPU the part of it where it has several."""
    part = getattr(lane, "part", "model")
    name = Path(getattr(lane, "bundle", lane.name)).name
    return name if part == "model" else f"{name} ({part})"


def ratio_between(one: Measured, other: Measured) -> Ratio:
    """Speed of one over another, block by block, per image."""
    return ratio_of(one, other, means=one.adaptive or other.adaptive)


def _beats(one: Measured, other: Measured) -> bool:
    """Is it faster in the middle half of the blocks?"""
    return one is other or bool(np.percentile(ratio_between(one, other).per_block, 25) > 1)


def _rows(outcome: Outcome) -> Iterator[Row]:
    lanes = comparable(outcome)
    state = MEASURED if outcome.complete else outcome.reason
    if not lanes:
        yield Row(outcome.device.name, "", state)
    for lane in lanes:
        yield Row(
            outcome.device.name, label(lane), state, lane.latency_ms["p50"], lane.latency_ms["p90"], lane.batch,
            _over_first(lane, lanes[0]), lane.images_per_s, _parity(outcome, lane),
        )  # fmt: skip  # two lines read better than nine


def _over_first(lane: Measured, first: Measured) -> float | None:
    """None for another part than the first bundle's."""
    if getattr(lane, "part", None) != getattr(first, "part", None):
        return None
    return 1.0 if lane is first else ratio_between(lane, first).median


def _parity(outcome: Outcome, lane: Measured) -> bool:
    """It was checked before the first block: `measure` raises ParityError otherwise."""
    assert outcome.result is not None
    return bool(outcome.result.conditions.get("parity"))


def _device(outcome: Outcome) -> dict[str, Any]:
    device, result = outcome.device, outcome.result
    return {
        "name": device.name,
        "kind": device.kind,
        "host": device.host.address if device.host else None,
        "state": MEASURED if outcome.complete else "partial" if result else "not measured",
        "reason": outcome.reason or None,
        "result": result and result.as_dict(),
    }
