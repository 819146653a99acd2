"""What `bench` measured: raw samples in milliseconds, and everything that is derived from them. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from morvit_deploy.measuring.core.samples import Block, Start, percentiles

if TYPE_CHECKING:
    from morvit_deploy.measuring.mix.mix import Mix

FORMAT = "morvit-bench/1"
DRIFT = 0.20  # a block this far from the first one: something else changed the machine's speed


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
