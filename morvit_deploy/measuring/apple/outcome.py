"""Measurements of a package under one choice of compute units, as a `MeasuredBundle`. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from morvit_deploy.measuring.apple.goldens import Agreement
from morvit_deploy.measuring.apple.placement import Placement
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.mix.mix import Mix
from morvit_deploy.report import Report
from morvit_deploy.timing.samples import Block, percentiles


@dataclass(frozen=True)
class FunctionTimes:
    """One function: its load times, ms, and blocks of consecutive runs."""

    load_ms: float  # of the first load, including specialisation unless the system has cached it
    reload_ms: float
    blocks: tuple[Block, ...]

    @property
    def samples_ms(self) -> list[float]:
        """Every run."""
        return [ms for block in self.blocks for ms in block.ms]

    def as_dict(self) -> dict[str, Any]:
        """Percentiles and every raw sample."""
        return {
            "load_ms": {"first": self.load_ms, "again": self.reload_ms},
            "latency_ms": percentiles(self.samples_ms),
            "blocks": [block.as_dict() for block in self.blocks],
        }


class HostMix(Mix):
    """A mix of functions, chosen outside of the timed runs, so dispatch costs nothing."""

    @property
    def switch(self) -> dict[str, Any] | None:
        """Not measured: the stream itself changes its bucket from run to run."""
        return None


@dataclass(frozen=True, repr=False)
class AppleMeasured(MeasuredBundle):
    """A package under one choice of compute units; its name is the bundle's with the units in brackets."""

    units: str = ""
    functions: Mapping[str, FunctionTimes] = field(default_factory=dict)
    placements: tuple[Placement, ...] = ()
    not_placed: str = ""  # why there is no placement
    parity: Mapping[str, Agreement] = field(default_factory=dict)  # by bucket

    def as_dict(self) -> dict[str, Any]:
        """As of any bundle, with Core ML's own figures."""
        return super().as_dict() | {
            "compute_units": self.units,
            "functions": {name: times.as_dict() for name, times in self.functions.items()},
            "placement": {one.function: one.as_dict() for one in self.placements} or None,
            **({"placement_note": self.not_placed} if self.not_placed else {}),
            "parity": {bucket: one.as_dict() for bucket, one in self.parity.items()},
        }


class AppleResult(BenchResult):
    """One package under several choices of compute units."""

    def report(self) -> Report:
        """Latency by compute units and function, mix, placement, parity and conditions."""
        from morvit_deploy.measuring.apple.views import apple_report

        return apple_report(self)
