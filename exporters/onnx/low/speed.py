"""Is the int8 graph faster than the same graph in float, here and now? A short, honest look: blocks in turn."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from morvit_deploy.exporters.onnx.graphs.assembly import STEM, WHOLE, Pieces
from morvit_deploy.exporters.onnx.low.observe import Feeds, open_session
from morvit_deploy.model.plan import Plan

BLOCKS = 7  # of each, one after the other: the median of the ratios forgives three that something disturbed
BLOCK_MS = 150.0  # of the slower one, at least MIN_RUNS of it
MIN_RUNS = 5


@dataclass(frozen=True)
class Speed:
    """Medians over the blocks, for one bucket (stem included)."""

    fp32_ms: float
    int8_ms: float
    ratio: float  # int8 over fp32, of blocks that were taken one after the other

    def as_dict(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self)


def measure_speed(floats: Pieces, integers: Pieces, plan: Plan, feeds: Feeds) -> dict[str, Speed]:
    """Bucket to its speed, all threads, on one batch of images."""
    speeds = {}
    for bucket in plan.buckets:
        part = bucket.name if plan.adaptive else WHOLE
        lanes = [_Lane(pieces, part, feeds) for pieces in (floats, integers)]
        runs = max(MIN_RUNS, int(BLOCK_MS / max(lane.block(MIN_RUNS) for lane in lanes)))
        blocks = [[lane.block(runs) for lane in lanes] for _ in range(BLOCKS)]
        slow, fast = ([block[which] for block in blocks] for which in (0, 1))
        ratio = median(b / a for a, b in zip(slow, fast, strict=True))
        speeds[bucket.name] = Speed(median(slow), median(fast), ratio)
    return speeds


def overall_ratio(speeds: dict[str, Speed], plan: Plan) -> float:
    """int8 over fp32 in the calibrated mix of buckets; each bucket alike where the plan does not tell the mix."""
    shares = [bucket.share if bucket.share is not None else 1.0 for bucket in plan.buckets]
    if not sum(shares):
        shares = [1.0] * len(shares)
    times = [(speeds[bucket.name], share) for bucket, share in zip(plan.buckets, shares, strict=True)]
    slow = sum(share * speed.fp32_ms for speed, share in times)
    return sum(share * speed.fp32_ms * speed.ratio for speed, share in times) / slow


class _Lane:
    """The graph of one bucket in one precision."""

    def __init__(self, pieces: Pieces, part: str, feeds: Feeds) -> None:
        self.feeds = feeds
        self.names = [value.name for value in pieces.parts[part].graph.output]
        self.session = open_session(pieces.parts[part])
        self.stem = None if part == WHOLE else open_session(pieces.parts[STEM])
        self.carried = list(pieces.carried)

    def block(self, runs: int) -> float:
        """Median of some runs, ms; the first one is not counted, as it finds another's weights in the cache."""
        self._run()
        samples = []
        for _ in range(runs):
            started = time.perf_counter_ns()
            self._run()
            samples.append((time.perf_counter_ns() - started) / 1e6)
        return median(samples)

    def _run(self) -> None:
        feeds = self.feeds
        if self.stem is not None:
            feeds = dict(zip(self.carried, self.stem.run(self.carried, feeds), strict=True))
        self.session.run(self.names, feeds)
