"""Results of the loop: raw samples in milliseconds, and figures derived from them. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Generic, TypeVar

from morvit_deploy.report import numbered
from morvit_deploy.timing.samples import Block, percentiles

FORMAT = "morvit-bench/1"
DRIFT = 0.20  # relative distance of a block from the first: beyond, the machine's speed changed
FEW = 3  # that drifted: more are one warning
BUSY_LOAD = 0.5  # load average per core before the start
BUSY_PERCENT = 10  # of all cores, used by others during the warm runs


@dataclass(frozen=True)
class Measured:
    """Blocks of one thing."""

    name: str
    batch: int  # images a run
    blocks: tuple[Block, ...]

    def __repr__(self) -> str:
        known = self.latency_ms if self.blocks else {}
        figures = "".join(f", {rank} {ms:.3g} ms" for rank, ms in known.items())
        blocks = numbered(len(self.blocks), "block")
        return f"{type(self).__name__}({self.name!r}, batch {self.batch}{figures}, {blocks})"

    @property
    def samples_ms(self) -> list[float]:
        """Every warm run, in the order of the blocks."""
        return [ms for block in self.blocks for ms in block.ms]

    @property
    def block_medians_ms(self) -> list[float]:
        """Median of each block; their spread shows how steady the machine was."""
        return [block.median_ms for block in self.blocks]

    @property
    def latency_ms(self) -> dict[str, float]:
        """p50, p90 and p99 of every warm run."""
        return percentiles(self.samples_ms)

    @property
    def images_per_s(self) -> float:
        """Images per second of consecutive warm runs."""
        return 1e3 * self.batch * len(self.samples_ms) / sum(self.samples_ms)

    @property
    def adaptive(self) -> bool:
        """Was a bucket chosen for each image?"""
        return any(block.bucket for block in self.blocks)

    @property
    def block_figures_ms(self) -> list[float]:
        """One figure a block: its median, or its mean where runs differ in their bucket."""
        return [block.mean_ms for block in self.blocks] if self.adaptive else self.block_medians_ms

    @property
    def drift(self) -> float:
        """Largest relative distance of a block's figure from the first block's."""
        first, *later = self.block_figures_ms
        return max((abs(figure / first - 1) for figure in later), default=0.0)


@dataclass(frozen=True)
class Ratio:
    """Speed-up per image of `of` over `against`, for each block."""

    of: str
    against: str
    per_block: tuple[float, ...]
    statistic: str = "median"  # of a block's runs

    @property
    def median(self) -> float:
        """Median of the blocks' ratios."""
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
    scale = one.batch / other.batch  # per image, to compare bundles of different batches
    ratios = tuple(b / a * scale for a, b in zip(ours, theirs, strict=True))
    return Ratio(one.name, other.name, ratios, "mean" if means else "median")


M_co = TypeVar("M_co", bound=Measured, covariant=True)


@dataclass(frozen=True)
class Result(Generic[M_co]):
    """All measurements of one call, with the conditions."""

    device: str
    measured: tuple[M_co, ...]
    conditions: dict[str, Any]
    warnings: tuple[str, ...] = ()
    partial: str | None = None  # why it ended early; blocks or bundles are then missing

    def as_dict(self) -> dict[str, Any]:
        """The part that the JSON of every measurement shares."""
        return {
            "format": FORMAT,
            "device": self.device,
            **({"partial": self.partial} if self.partial else {}),
            "conditions": self.conditions,
            "warnings": list(self.warnings),
        }


def described(result: Result[Measured]) -> str:
    """Device, median latencies and warnings, for a repr."""
    measured = [one for one in result.measured if one.blocks]
    medians = ", ".join(f"{one.name} {one.latency_ms['p50']:.3g} ms" for one in measured)
    partial = f", partial: {result.partial}" if result.partial else ""
    warnings = f", {len(result.warnings)} warnings" if result.warnings else ""
    return f"{result.device!r}, {medians}{partial}{warnings}"


def warnings_about(conditions: Mapping[str, Any], measured: Sequence[Measured]) -> tuple[str, ...]:
    """What makes the figures doubtful."""
    return (*_busy_before(conditions), *_busy_meanwhile(measured), *_drifts(measured))


def _busy_before(conditions: Mapping[str, Any]) -> list[str]:
    load, cores = conditions["load_average_before"], conditions["machine"]["cores"]
    used = conditions["cpu_used_before_percent"]
    if not load or load[0] <= BUSY_LOAD * cores:
        return []
    then = "" if used is None else f", {used:.0f} % of the processor in use at that moment"
    return [f"the machine was busy before the start: load average {load[0]:.2f} over {cores} cores{then}"]


def _busy_meanwhile(measured: Sequence[Measured]) -> list[str]:
    read = [block.others_percent for one in measured for block in one.blocks]
    shares = [share for share in read if share is not None]
    if not shares or median(shares) <= BUSY_PERCENT:
        return []
    what = "of the processor during the warm runs (median over the blocks)"
    return [f"other processes used {median(shares):.0f} % {what}"]


def _drifts(measured: Sequence[Measured]) -> list[str]:
    """A warning for each that drifted, or one about all of them where they are many."""
    moved = [one for one in measured if one.drift > DRIFT]
    why = "heat, other processes or a changing clock affect these figures"
    if len(moved) > FEW:
        least, most = (pick(moved, key=lambda one: one.drift) for pick in (min, max))
        return [
            f"{len(moved)} of {len(measured)} have a block that differs from their first, by {least.drift:.0%} to "
            f"{most.drift:.0%} ({most.name}): {why}"
        ]
    return [f"{one.name}: a block differs from the first by {one.drift:.0%}: {why}" for one in moved]
