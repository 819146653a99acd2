"""What a schedule costs, for many schedules at once: MACs, or milliseconds measured on this machine. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.routing.statistics import Thresholds
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs, stem_macs
from morvit_deploy.model.plan import bucket_macs, routed_by


@dataclass(frozen=True)
class MacCost:
    """Multiply-accumulates of an image."""

    config: Config
    unit = "MACs"

    def of(self, schedules: NDArray[np.int64], thresholds: Thresholds | None = None) -> NDArray[np.float64]:
        """Schedules (m, steps) to MACs (m,), stem included; without thresholds as a top-k or depth graph."""
        if thresholds is None and self.config.capacity is not None:  # each has routed steps of its own
            each = [bucket_macs(self.config, tuple(map(int, row)), None) for row in schedules]
            return np.array(each, dtype=np.float64)
        routed = None if thresholds is None else routed_by(self.config, thresholds)
        columns: Any = tuple(np.asarray(schedules, dtype=np.int64).T)  # the formulas take these, too
        return np.asarray(schedule_macs(self.config, columns, routed=routed), dtype=np.float64)

    def stem(self, lead: int) -> float:
        """What all buckets have in common, which a second run does not repeat."""
        return float(stem_macs(self.config, lead))


@dataclass(frozen=True)
class MeasuredCost:
    """Milliseconds of an image, from trunks that hold all tokens up to step `lead` (from 0), then as many at each.

    `held` are numbers of patch tokens, rising, and `ms` the medians of the trunks that hold so many; a schedule costs
    the mean over its steps from `lead` of these times, interpolated, and the stem's, `stem_ms`.
    """

    held: tuple[int, ...]
    ms: tuple[float, ...]
    stem_ms: float
    lead: int = 0
    unit = "ms"

    def of(self, schedules: NDArray[np.int64], thresholds: Thresholds | None = None) -> NDArray[np.float64]:
        """Schedules (m, steps) to milliseconds (m,), stem included; `thresholds` change nothing."""
        rising = np.maximum.accumulate(self.ms)  # noise must not make a larger bucket the cheaper one
        trunk = np.interp(np.asarray(schedules)[:, self.lead :], self.held, rising)
        ms: NDArray[np.float64] = self.stem_ms + trunk.mean(axis=1)
        return ms

    def stem(self, lead: int) -> float:
        """What all buckets have in common."""
        return self.stem_ms


Costs = MacCost | MeasuredCost


def expand(
    schedules: NDArray[np.int64], routed: Sequence[int], steps: int, everyone: int
) -> NDArray[np.int64]:
    """Capacities at the routed steps (m, routed) to all steps (m, steps): at the others as many as before."""
    full = np.full((len(schedules), steps), everyone, dtype=np.int64)
    for column, step in enumerate(routed):
        full[:, step:] = schedules[:, column : column + 1]
    return full
