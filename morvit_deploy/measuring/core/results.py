"""Measurements of bundles: the loop's samples, and the bundle's properties and memory. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any

from morvit_deploy.measuring.mix.mix import Mix
from morvit_deploy.report import Report, Shown
from morvit_deploy.timing.result import Measured, Ratio, Result, described, ratio_of
from morvit_deploy.timing.samples import Start

if TYPE_CHECKING:
    from morvit_deploy.measuring.profiling.result import Profile


@dataclass(frozen=True, repr=False)
class MeasuredBundle(Measured):
    """One bundle's measurements; its name is the folder as it was given."""

    target: str
    precision: str
    form: str
    macs: dict[str, int]  # one image, for each bucket
    file_bytes: int
    inputs_digest: str
    starts: tuple[Start, ...]
    memory_mib: dict[str, float]
    mix: Mix | None = None  # of an adaptive bundle
    profile: Profile | None = None  # where the time goes, if it was asked for
    energy: dict[str, Any] | None = None  # where power is read: mJ per image, how, and from which rails

    @property
    def gmacs_per_s(self) -> float | None:
        """Billions of MACs per second at the median; None when several buckets share the runs."""
        if len(self.macs) != 1:
            return None
        (macs,) = self.macs.values()
        return macs * self.batch / self.latency_ms["p50"] / 1e6

    def start_ms(self, what: str) -> float:
        """Median over the starts of `cold_start_ms`, `load_ms` or `first_run_ms`."""
        found: float = median(getattr(start, what) for start in self.starts)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Percentiles and every raw sample."""
        fields = ("target", "precision", "form", "batch", "macs", "file_bytes", "inputs_digest")
        return {
            "bundle": self.name,
            **{name: getattr(self, name) for name in fields},
            "latency_ms": self.latency_ms,
            "block_medians_ms": self.block_medians_ms,
            "images_per_s": self.images_per_s,
            "gmacs_per_s": self.gmacs_per_s,
            **{name: self.start_ms(name) for name in ("cold_start_ms", "load_ms", "first_run_ms")},
            "memory_mib": self.memory_mib,
            "starts": [asdict(start) for start in self.starts],
            "blocks": [block.as_dict() for block in self.blocks],
            **({"mix": self.mix.as_dict()} if self.mix else {}),
            **({"profile": self.profile.as_dict()} if self.profile else {}),
            **({"energy": self.energy} if self.energy else {}),
        }


@dataclass(frozen=True, repr=False)
class BenchResult(Result[MeasuredBundle], Shown):
    """All bundles of one call."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({described(self)})"

    def report(self) -> Report:
        """Latency, ratios, start, cost and conditions."""
        views = import_module(
            "morvit_deploy.measuring.views"
        )  # by name: a project for a Mac does not carry it
        shown: Report = views.bench_report(self)
        return shown

    def ratio(self, of: int, against: int) -> Ratio:
        """Bundle number `of` against number `against`; by means if either chooses buckets."""
        one, other = self.measured[of], self.measured[against]
        return ratio_of(one, other, means=one.adaptive or other.adaptive)

    @property
    def ratios(self) -> list[Ratio]:
        """The first bundle against each of the others."""
        return [self.ratio(0, other) for other in range(1, len(self.measured))]

    def as_dict(self) -> dict[str, Any]:
        """What `bench --json` prints."""
        bundles = [measured.as_dict() for measured in self.measured]
        return super().as_dict() | {"bundles": bundles, "ratios": [ratio.as_dict() for ratio in self.ratios]}
