"""Latency of one kind of run, over a mix of kinds, and of pairs of blocks. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from morvit_deploy.timing.arithmetic import Difference, difference
from morvit_deploy.timing.samples import Block, percentiles


@dataclass(frozen=True)
class Pair:
    """Blocks of two things on the same pictures; block i of one follows block i of the other."""

    ones: tuple[Block, ...]
    others: tuple[Block, ...]

    @property
    def of_medians(self) -> Difference:
        """For runs of one kind."""
        return difference([b.median_ms for b in self.ones], [b.median_ms for b in self.others])

    @property
    def of_kinds(self) -> Difference:
        """For equally many runs of several kinds: means over the kinds' medians."""
        return difference([_even_ms(b) for b in self.ones], [_even_ms(b) for b in self.others])

    def as_dict(self, one: str, other: str) -> dict[str, Any]:
        """Every raw sample of both."""
        blocks = {one: self.ones, other: self.others}
        return {f"{name}_blocks": [block.as_dict() for block in taken] for name, taken in blocks.items()}


@dataclass(frozen=True)
class Latency:
    """Latency of one kind of run, ms, and where the samples come from."""

    samples_ms: tuple[float, ...]
    source: str

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        return median(self.samples_ms)

    def as_dict(self) -> dict[str, Any]:
        """Percentiles, number and origin of the samples, which are stored elsewhere."""
        return {**percentiles(self.samples_ms), "samples": len(self.samples_ms), "from": self.source}


@dataclass(frozen=True)
class Over:
    """Latency over a mix of kinds."""

    shares: Mapping[str, float]
    overflow: float | None  # part of the images whose predicted bucket was too small; None: not known
    expected_ms: float | None  # shares times medians
    p99_ms: float | None  # of the samples, weighted by share
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        figures = {"overflow": self.overflow, "expected_ms": self.expected_ms, "p99_ms": self.p99_ms}
        return {"shares": dict(self.shares), **figures, **({"note": self.note} if self.note else {})}


def _even_ms(block: Block) -> float:
    """Mean of the kinds' medians, which one slow run does not change."""
    return fmean(median(samples_of_kind([block], kind)) for kind in set(block.kinds))


def samples_of(blocks: Sequence[Block]) -> tuple[float, ...]:
    """Every run, in the order of the blocks."""
    return tuple(ms for block in blocks for ms in block.ms)


def samples_of_kind(blocks: Sequence[Block], kind: str) -> tuple[float, ...]:
    """Runs of that kind, one image each."""
    return tuple(ms for block in blocks for ms, own in zip(block.ms, block.kinds, strict=True) if own == kind)
