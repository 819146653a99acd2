"""An adaptive bundle: latency by bucket, latency over the mix, and dispatch overhead. No torch.

There are four measurements. `stream` is the bundle as a user runs it. `repeated` runs pictures of one kind in the
bundle, and the same pictures in that bucket alone; the difference is the overhead of dispatch, or of a misprediction.
`alone` runs one bucket for every picture. `orders` runs the same pictures with the bucket changing from run to run,
and grouped by bucket; the difference is the cost of switching.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

from morvit_deploy.measuring.mix.latency import Latency, Over, Pair, samples_of, samples_of_kind
from morvit_deploy.timing.arithmetic import (
    OVERFLOWED,
    Difference,
    after_overflow,
    expected_over,
    percentile_over,
    shares_of,
)
from morvit_deploy.timing.samples import Block, percentiles

if TYPE_CHECKING:  # Core ML's bench runs where there is no pydantic
    from morvit_deploy.exporters.coreml.sdk.bundle import PlanShape
    from morvit_deploy.model.plan import Plan

# where the samples of a kind come from
IN_STREAM = "stream"
IN_A_ROW = "in a row"  # only pictures outside the stream are of this kind
WITH_DISPATCH = "alone plus dispatch"  # no picture is of this kind; with the other kinds' median overhead
ALONE = "alone"  # no dispatch overhead is known
AT_MOST = "parts, at most"  # a predicted bucket plus `full`, both alone, which counts the stem twice
ONE_BUCKET = "the pictures meet only one bucket without overflow"


@dataclass(frozen=True)
class Mix:
    """Measurements of an adaptive bundle; at more than one image a run, only shares and single buckets."""

    plan: Plan | PlanShape
    batch: int
    kinds: tuple[str, ...]  # of each picture
    stream: tuple[Block, ...]
    alone: dict[str, tuple[Block, ...]]  # by bucket
    repeated: dict[str, Pair]  # by kind: the bundle, and the bucket that ran last, alone
    orders: Pair | None  # changing from run to run, and grouped; None for one bucket

    @property
    def full(self) -> str:
        """Name of the bucket that has room for every image."""
        return self.plan.buckets[-1].name

    @property
    def predicts(self) -> bool:
        """Can the choice of a bucket be wrong?"""
        return self.plan.mode == "threshold"

    @property
    def calibrated_shares(self) -> dict[str, float] | None:
        """Share of the calibration images that choose each bucket; None if the plan has none."""
        shares = {bucket.name: bucket.share for bucket in self.plan.buckets if bucket.share is not None}
        return shares if len(shares) == len(self.plan.buckets) and any(shares.values()) else None

    @property
    def calibrated_overflow(self) -> float | None:
        """Share of the calibration images that overflowed; None if the plan has none."""
        share = (self.plan.calibration or {}).get("overflow") if self.predicts else 0.0
        return float(share) if isinstance(share, (int, float)) and 0 <= share <= 1 else None

    @cached_property
    def latency_of(self) -> dict[str, Latency]:
        """Latency by kind, including every bucket; empty at more than one image a run."""
        if self.batch > 1:
            return {}
        own = {kind: self._own(kind) for kind in (*self.alone, *([OVERFLOWED] if self.predicts else []))}
        return {kind: found or self._of_parts(kind) for kind, found in own.items()}

    def dispatch(self, bucket: str) -> Difference | None:
        """The bundle when this bucket runs last, minus the bucket alone; None if no picture is of that kind."""
        return self.repeated[bucket].of_medians if bucket in self.repeated else None

    @property
    def misprediction(self) -> dict[str, Any] | None:
        """Extra latency of an overflowed image over `full` alone, ms; None where nothing is predicted."""
        if not self.predicts or self.batch > 1:
            return None
        if OVERFLOWED in self.repeated:
            measured = self.repeated[OVERFLOWED].of_medians
            return {**measured.as_dict(), "from": IN_A_ROW}
        return {"ms": self._predicted_ms(), "from": AT_MOST}

    @property
    def switch(self) -> dict[str, Any] | None:
        """Extra ms an image when the bucket changes from run to run, compared with runs grouped by bucket."""
        if self.batch > 1:
            return None
        if self.orders is None:
            return {"ms": 0.0, "note": ONE_BUCKET}
        return self.orders.of_kinds.as_dict()

    @property
    def calibrated(self) -> Over | None:
        """Over the mix of the calibration images; None if the plan has none."""
        if self.calibrated_shares is None:
            return None
        overflow, note = self.calibrated_overflow, ""
        if overflow is None:
            note = "without mispredictions, which the plan does not record"
        return self._over(after_overflow(self.calibrated_shares, overflow or 0.0, self.full), overflow, note)

    @property
    def fed(self) -> Over:
        """Over the mix of the measured pictures."""
        shares = shares_of(self.kinds)
        ordered = {kind: shares[kind] for kind in (*self.alone, OVERFLOWED) if kind in shares}
        return self._over(ordered, shares.get(OVERFLOWED, 0.0))

    def _over(self, shares: Mapping[str, float], overflow: float | None, note: str = "") -> Over:
        if not self.latency_of:
            return Over(shares, overflow, None, None, "latency over a mix is measured at one image a run")
        samples = {kind: latency.samples_ms for kind, latency in self.latency_of.items()}
        medians = {kind: latency.median_ms for kind, latency in self.latency_of.items()}
        p99 = percentile_over(shares, samples, 99)
        return Over(shares, overflow, expected_over(shares, medians), p99, note)

    def _own(self, kind: str) -> Latency | None:
        """Samples of this kind from the bundle itself, if any."""
        if stream := samples_of_kind(self.stream, kind):
            return Latency(stream, IN_STREAM)
        return Latency(samples_of(self.repeated[kind].ones), IN_A_ROW) if kind in self.repeated else None

    def _of_parts(self, kind: str) -> Latency:
        """Samples of a bucket alone, plus the overhead of such a run."""
        known = [cost.median_ms for bucket in self.alone if (cost := self.dispatch(bucket))]
        bucket, more_ms, source = kind, median(known) if known else 0.0, WITH_DISPATCH if known else ALONE
        if kind == OVERFLOWED:
            bucket, more_ms, source = self.full, self._predicted_ms(), AT_MOST
        return Latency(tuple(ms + more_ms for ms in samples_of(self.alone[bucket])), source)

    def _predicted_ms(self) -> float:
        """Medians of the buckets before `full`, averaged by the share that chooses them."""
        early = {name: median(samples_of(own)) for name, own in self.alone.items() if name != self.full}
        known = self.calibrated_shares or {}
        shares = {name: known.get(name, 0.0) for name in early}
        return expected_over(shares if any(shares.values()) else dict.fromkeys(early, 1.0), early)

    def as_dict(self) -> dict[str, Any]:
        """Every figure, and every raw sample except those of the stream."""
        calibrated, overflowed = self.calibrated, self.repeated.get(OVERFLOWED)
        return {
            "batch": self.batch,
            "images": len(self.kinds),
            "calibrated": calibrated.as_dict() if calibrated else None,
            "fed": self.fed.as_dict(),
            "answering_ms": {kind: latency.as_dict() for kind, latency in self.latency_of.items()},
            "buckets": {bucket.name: self._bucket_dict(bucket.name) for bucket in self.plan.buckets},
            "misprediction": self.misprediction,
            "switch": self.switch,
            "overflowed": overflowed.as_dict("repeated", "full_alone") if overflowed else None,
            "orders": self.orders.as_dict("changing", "grouped") if self.orders else None,
        }

    def _bucket_dict(self, name: str) -> dict[str, Any]:
        cost, samples = self.dispatch(name), samples_of(self.alone[name])
        pair = self.repeated.get(name)
        return {
            "alone_ms": percentiles(samples),
            "alone_images_per_s": 1e3 * self.batch * len(samples) / sum(samples),
            "dispatch": cost.as_dict() if cost else None,
            "alone_blocks": [block.as_dict() for block in self.alone[name]],
            "repeated_blocks": [block.as_dict() for block in pair.ones] if pair else None,
        }
