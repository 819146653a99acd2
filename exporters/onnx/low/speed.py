"""Is a lowered graph faster than the fp32 graph on this machine? A short measurement in alternating blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.exporters.onnx.graphs.assembly import STEM, WHOLE, Pieces
from morvit_deploy.exporters.onnx.low.observe import open_session
from morvit_deploy.model.plan import Plan
from morvit_deploy.timing.loop import Amount, CallLane, Calls, Stages, measure

# 7 blocks of each: the median of the ratios tolerates three disturbed ones. The first run of a block is not counted,
# as the cache holds the other graph's weights.
AMOUNT = Amount(blocks=7, warmup=1, starts=1, least=5, most=1_000_000, block_ms=150.0)


@dataclass(frozen=True)
class Speed:
    """Medians over the blocks, for one bucket (stem included)."""

    fp32_ms: float
    low_ms: float
    ratio: float  # the lower precision over fp32, of consecutive blocks

    def as_dict(self, name: str) -> dict[str, float]:
        """For a manifest, with `name` for the lower precision."""
        return {"fp32_ms": self.fp32_ms, f"{name}_ms": self.low_ms, "ratio": self.ratio}


def measure_speed(floats: Pieces, lowered: Pieces, plan: Plan, feeds: Arrays) -> dict[str, Speed]:
    """Bucket to its speed, all threads, on one batch of images."""
    return {
        bucket.name: _speed(floats, lowered, bucket.name if plan.adaptive else WHOLE, feeds)
        for bucket in plan.buckets
    }


def overall_ratio(speeds: dict[str, Speed], plan: Plan) -> float:
    """The lower precision over fp32 in the calibrated mix of buckets; equal shares where the plan has none."""
    shares = [bucket.share if bucket.share is not None else 1.0 for bucket in plan.buckets]
    if not sum(shares):
        shares = [1.0] * len(shares)
    times = [(speeds[bucket.name], share) for bucket, share in zip(plan.buckets, shares, strict=True)]
    slow = sum(share * speed.fp32_ms for speed, share in times)
    return sum(share * speed.fp32_ms * speed.ratio for speed, share in times) / slow


def _speed(floats: Pieces, lowered: Pieces, part: str, feeds: Arrays) -> Speed:
    lanes = [
        CallLane(name=name, call=_graph(pieces, part, feeds))
        for name, pieces in (("fp32", floats), ("lowered", lowered))
    ]
    measure(Calls(), lanes, AMOUNT, Stages())
    slow, fast = ([block.median_ms for block in lane.blocks] for lane in lanes)
    ratio = median(b / a for a, b in zip(slow, fast, strict=True))
    return Speed(median(slow), median(fast), ratio)


def _graph(pieces: Pieces, part: str, feeds: Arrays) -> Callable[[], object]:
    """A run of one bucket's graph in one precision, stem included."""
    names = [value.name for value in pieces.parts[part].graph.output]
    session = open_session(pieces.parts[part])
    if part == WHOLE:
        return lambda: session.run(names, feeds)
    stem, carried = open_session(pieces.parts[STEM]), list(pieces.carried)
    return lambda: session.run(names, dict(zip(carried, stem.run(carried, feeds), strict=True)))
