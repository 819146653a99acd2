"""What `bench` measured: raw samples in milliseconds, and everything that is derived from them. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from morvit_deploy.measuring.arithmetic import OVERFLOWED

if TYPE_CHECKING:
    from morvit_deploy.measuring.mix import Mix

FORMAT = "morvit-bench/1"
PERCENTILES = (50, 90, 99)
DRIFT = 0.20  # a block this far from the first one: something else changed the machine's speed


def percentiles(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 of raw samples, in their own unit, by linear interpolation."""
    values = np.percentile(np.asarray(samples_ms, dtype=np.float64), PERCENTILES)
    return {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, values, strict=True)}


@dataclass(frozen=True)
class Start:
    """One new process: from its start to its first answer, of which loading and the first run; milliseconds."""

    cold_start_ms: float  # interpreter and imports included
    load_ms: float  # hashes checked, session made; imports excluded
    first_run_ms: float
    anonymous_mib: float | None  # before the bundle was opened
    resident_mib: float | None = None  # the same of all that is resident, the runtime's own code among it


@dataclass(frozen=True)
class Block:
    """Consecutive runs of one bundle, milliseconds each; the warm-up runs before them are kept apart."""

    ms: tuple[float, ...]
    warmup_ms: tuple[float, ...] = ()
    others_percent: float = 0.0  # of all cores, used by other processes meanwhile
    bucket: tuple[tuple[str, ...], ...] = ()  # that answered, for each run and image, where a bundle chooses
    overflow: tuple[tuple[bool, ...], ...] = ()  # of the predicted bucket, where one is predicted

    @property
    def median_ms(self) -> float:
        """Half of the block's runs were faster."""
        return median(self.ms)

    @property
    def mean_ms(self) -> float:
        """Time of the whole block over its runs."""
        return fmean(self.ms)

    @property
    def kinds(self) -> list[str]:
        """The kind of each image's answer, run after run: its bucket, or OVERFLOWED; none where none is chosen."""
        names = [name for run in self.bucket for name in run]
        flags = (
            [flag for run in self.overflow for flag in run]
            if names and self.overflow
            else [False] * len(names)
        )
        return [OVERFLOWED if flag else name for name, flag in zip(names, flags, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Every raw sample, with the bucket of each image where the bundle chooses one."""
        plain = {
            "ms": list(self.ms),
            "warmup_ms": list(self.warmup_ms),
            "others_percent": self.others_percent,
        }
        chosen = {"bucket": self.bucket, "overflow": self.overflow}
        return plain | {name: [list(run) for run in runs] for name, runs in chosen.items() if runs}


@dataclass(frozen=True)
class Measured:
    """One bundle's measurements."""

    bundle: str
    target: str
    precision: str
    form: str
    batch: int  # images a run
    macs: dict[str, int]  # one image, for each bucket
    file_bytes: int
    inputs_digest: str
    starts: tuple[Start, ...]
    blocks: tuple[Block, ...]
    memory_mib: dict[str, float]
    mix: Mix | None = None  # where a bucket is chosen for each image
    energy: dict[str, Any] | None = (
        None  # where the device reads power: mJ per image, how, and from which rails
    )

    @property
    def samples_ms(self) -> list[float]:
        """Every warm run, in the order of the blocks."""
        return [ms for block in self.blocks for ms in block.ms]

    @property
    def block_medians_ms(self) -> list[float]:
        """One number a block: their spread says how steady the machine was."""
        return [block.median_ms for block in self.blocks]

    @property
    def latency_ms(self) -> dict[str, float]:
        """p50, p90 and p99 of every warm run."""
        return percentiles(self.samples_ms)

    @property
    def images_per_s(self) -> float:
        """Images answered per second of warm runs, one run after the other."""
        return 1e3 * self.batch * len(self.samples_ms) / sum(self.samples_ms)

    @property
    def gmacs_per_s(self) -> float | None:
        """Billions of MACs per second at the median; None when several buckets share the runs."""
        if len(self.macs) != 1:
            return None
        (macs,) = self.macs.values()
        return macs * self.batch / self.latency_ms["p50"] / 1e6

    @property
    def adaptive(self) -> bool:
        """Was a bucket chosen for each image?"""
        return any(block.bucket for block in self.blocks)

    @property
    def block_figures_ms(self) -> list[float]:
        """What stands for a block: its median; the mean where buckets differ, as a median lies in one of them."""
        return [block.mean_ms for block in self.blocks] if self.adaptive else self.block_medians_ms

    @property
    def drift(self) -> float:
        """Largest relative distance of a block's figure from the first block's."""
        first, *later = self.block_figures_ms
        return max((abs(figure / first - 1) for figure in later), default=0.0)

    def start_ms(self, what: str) -> float:
        """Median over the starts of `cold_start_ms`, `load_ms` or `first_run_ms`."""
        return median(getattr(start, what) for start in self.starts)

    def as_dict(self) -> dict[str, Any]:
        """Percentiles and every raw sample."""
        fields = ("bundle", "target", "precision", "form", "batch", "macs", "file_bytes", "inputs_digest")
        return {
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
            **({"energy": self.energy} if self.energy else {}),
        }


@dataclass(frozen=True)
class Ratio:
    """How many times as fast, per image, `of` is as `against`: one ratio for each block."""

    of: str
    against: str
    per_block: tuple[float, ...]
    statistic: str = "median"  # of a block's runs

    @property
    def median(self) -> float:
        """The middle one of the blocks' ratios."""
        return median(self.per_block)

    def as_dict(self) -> dict[str, Any]:
        """Median, extremes and each block's ratio."""
        extremes = {"median": self.median, "min": min(self.per_block), "max": max(self.per_block)}
        named = {"of": self.of, "against": self.against, "statistic": self.statistic}
        return {**named, **extremes, "per_block": list(self.per_block)}


def ratio_of(one: Measured, other: Measured, *, means: bool) -> Ratio:
    """Block by block, from the blocks' means or medians."""
    ours, theirs = ([b.mean_ms if means else b.median_ms for b in m.blocks] for m in (one, other))
    both = min(len(ours), len(theirs))  # a measurement that ended early has one block more of the first
    ours, theirs = ours[:both], theirs[:both]
    scale = one.batch / other.batch  # per image, so that bundles of other batches compare
    ratios = tuple(b / a * scale for a, b in zip(ours, theirs, strict=True))
    return Ratio(one.bundle, other.bundle, ratios, "mean" if means else "median")


@dataclass(frozen=True)
class BenchResult:
    """All bundles of one call, measured in turn, with the conditions."""

    device: str
    measured: tuple[Measured, ...]
    conditions: dict[str, Any]
    warnings: tuple[str, ...]
    partial: str | None = None  # why it ended early; then bundles may have fewer blocks, or be missing

    def ratio(self, of: int, against: int) -> Ratio:
        """Bundle number `of` against bundle number `against`; by means if either's runs differ in their bucket."""
        one, other = self.measured[of], self.measured[against]
        return ratio_of(one, other, means=one.adaptive or other.adaptive)

    @property
    def ratios(self) -> list[Ratio]:
        """The first bundle against each of the others."""
        return [self.ratio(0, other) for other in range(1, len(self.measured))]

    def as_dict(self) -> dict[str, Any]:
        """What `bench --json` prints."""
        return {
            "format": FORMAT,
            "device": self.device,
            **({"partial": self.partial} if self.partial else {}),
            "conditions": self.conditions,
            "warnings": list(self.warnings),
            "bundles": [measured.as_dict() for measured in self.measured],
            "ratios": [ratio.as_dict() for ratio in self.ratios],
        }
