"""Rows of a comparison, from raw samples: ratios to one row with their interval, ranks, and whether they hold.

No torch, no onnx.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np

from morvit_deploy.measuring.compare.baselines.published import REFERENCE, Published
from morvit_deploy.report import Report, Shown
from morvit_deploy.timing.arithmetic import OVERFLOWED
from morvit_deploy.timing.result import Measured, Ratio, Result, ratio_of
from morvit_deploy.timing.samples import Block, Start

FORMAT = "morvit-compare/1"
NOISE = 0.10  # spread of a row's middle half of blocks, relative to their median: beyond, ranks mean nothing
_OWN = ("kind", "runtime", "precision", "image", "parameters", "file_bytes")


@dataclass(frozen=True)
class Throughput:
    """Runs of several pictures at once, by their number, and why no more were tried."""

    blocks: dict[int, Block]
    ended: str = ""

    def images_per_s(self, batch: int) -> float:
        """Of all runs of a batch size."""
        ms = self.blocks[batch].ms
        return 1e3 * batch * len(ms) / sum(ms)

    def as_dict(self) -> dict[str, Any]:
        """Every raw sample, by batch size."""
        found = {
            str(batch): {"images_per_s": self.images_per_s(batch), **block.as_dict()}
            for batch, block in self.blocks.items()
        }
        return {"batches": found, "ended": self.ended}


@dataclass(frozen=True, repr=False)
class Row(Measured):
    """One model's measurements at batch 1."""

    kind: str  # bundle, baseline or form
    runtime: str
    precision: str
    image: int | tuple[int, int]  # pixels; (height, width) if they differ
    parameters: int | None
    macs_by_bucket: dict[str, int] | None  # None: unknown, as a shape depends on the input's content
    file_bytes: int | None
    starts: tuple[Start, ...]
    memory_mib: dict[str, float]
    published: Published | None = None
    throughput: Throughput | None = None  # of larger batches, if they were asked for

    @property
    def by_batch(self) -> dict[int, float]:
        """Images per second by batch size: of batch 1 from the blocks."""
        larger = {} if self.throughput is None else self.throughput.blocks
        return {self.batch: self.images_per_s} | {
            batch: self.throughput.images_per_s(batch) for batch in larger if self.throughput
        }

    @property
    def best_batch(self) -> int:
        """The batch size of most images per second; the smallest of equals."""
        return max(self.by_batch, key=lambda batch: (self.by_batch[batch], -batch))

    @property
    def macs(self) -> float | None:
        """Of one image: of the only bucket, or the mean over those that ran."""
        known, kinds = self.macs_by_bucket, [kind for block in self.blocks for kind in block.kinds]
        if known is None or len(known) == 1 or not kinds:
            return next(iter(known.values())) if known and len(known) == 1 else None
        dearest = max(known.values())
        ran = [known[kind] if kind != OVERFLOWED else dearest for kind in kinds]
        return sum(ran) / len(ran)

    @property
    def cold_start_ms(self) -> float:
        """Median over the starts."""
        return median(start.cold_start_ms for start in self.starts)

    @property
    def noise(self) -> float:
        """Spread of the middle half of the blocks, relative to their median."""
        low, middle, high = np.percentile(self.block_figures_ms, (25, 50, 75))
        return float((high - low) / middle)

    def as_dict(self) -> dict[str, Any]:
        """Figures and every raw sample."""
        return {
            "name": self.name,
            **{name: getattr(self, name) for name in _OWN},
            "macs": self.macs,
            "macs_by_bucket": self.macs_by_bucket,
            "latency_ms": self.latency_ms,
            "images_per_s": self.images_per_s,
            "best_batch": self.best_batch,
            "best_images_per_s": self.by_batch[self.best_batch],
            "throughput": self.throughput and self.throughput.as_dict(),
            "cold_start_ms": self.cold_start_ms,
            "noise": self.noise,
            "memory_mib": self.memory_mib,
            "published": self.published and self.published.as_dict(),
            "starts": [asdict(start) for start in self.starts],
            "blocks": [block.as_dict() for block in self.blocks],
        }


@dataclass(frozen=True)
class NotMeasured:
    """A model that was asked for and has no figures, with the reason."""

    name: str
    reason: str
    published: Published | None = None

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        return {
            "name": self.name,
            "reason": self.reason,
            "published": self.published and self.published.as_dict(),
        }


@dataclass(frozen=True, repr=False)
class Comparison(Result[Row], Shown):
    """All rows of one run; the first is the subject."""

    left_out: tuple[NotMeasured, ...] = ()

    def __repr__(self) -> str:
        return f"Comparison({self.sentence!r})"

    @property
    def reference(self) -> Row:
        """The row that ratios refer to: ViT-B/16 if it is there, else the first."""
        return next((row for row in self.measured if row.name == REFERENCE), self.measured[0])

    def ratio(self, row: Row, against: Row | None = None) -> Ratio:
        """How many times as fast a row is, block by block; against the reference unless another is given."""
        other = against or self.reference
        return ratio_of(row, other, means=row.adaptive or other.adaptive)

    @property
    def noise(self) -> float:
        """Of the typical row."""
        return median(row.noise for row in self.measured)

    @property
    def too_noisy(self) -> bool:
        """Do a row's own blocks differ so much that ranks mean nothing?"""
        return self.noise > NOISE

    @cached_property
    def ordered(self) -> list[Row]:
        """Fastest first; by means where one chooses buckets, as their ratios are."""
        means = any(row.adaptive for row in self.measured)

        def time(row: Row) -> float:
            return median(block.mean_ms if means else block.median_ms for block in row.blocks)

        return sorted(self.measured, key=time)

    @cached_property
    def ranks(self) -> dict[str, str]:
        """Name to rank; `=2` where the fastest of some rows is not faster in every block. Empty where too noisy."""
        if self.too_noisy:
            return {}
        groups: list[list[Row]] = []
        for row in self.ordered:
            if groups and min(self.ratio(groups[-1][0], row).per_block) <= 1:
                groups[-1].append(row)
            else:
                groups.append([row])
        ranks: dict[str, str] = {}
        place = 1
        for group in groups:
            ranks |= {row.name: f"={place}" if len(group) > 1 else str(place) for row in group}
            place += len(group)
        return ranks

    @property
    def sentence(self) -> str:
        """The result in words."""
        from morvit_deploy.measuring.compare.results.views import sentence_of

        return sentence_of(self)

    def report(self) -> Report:
        """The table, what is published, the picture, what was not measured, and the conditions."""
        from morvit_deploy.measuring.compare.results.views import compare_report

        return compare_report(self)

    def as_dict(self) -> dict[str, Any]:
        """What `compare --json` prints."""
        return super().as_dict() | {
            "format": FORMAT,
            "sentence": self.sentence,
            "reference": self.reference.name,
            "noise": self.noise,
            "too_noisy": self.too_noisy,
            "ranks": self.ranks,
            "rows": [row.as_dict() for row in self.measured],
            "ratios": [self.ratio(row).as_dict() for row in self.measured],
            "left_out": [one.as_dict() for one in self.left_out],
        }
