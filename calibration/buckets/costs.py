"""Costs of schedules, vectorised: MACs, or milliseconds measured on this machine. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.routing.statistics import Thresholds
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import schedule_macs, stem_macs
from morvit_deploy.model.plan import bucket_macs
from morvit_deploy.model.routings.schedules import routed_by


@dataclass(frozen=True)
class MacCost:
    """Cost in MACs per image."""

    config: Config
    unit = "MACs"

    def of(self, schedules: NDArray[np.int64], thresholds: Thresholds | None = None) -> NDArray[np.float64]:
        """Return the MACs (m,) of schedules (m, steps), including the stem; without thresholds, of top-k or depth."""
        if thresholds is None and self.config.capacity is not None:  # routed steps depend on the schedule
            each = [bucket_macs(self.config, tuple(map(int, row)), None) for row in schedules]
            return np.array(each, dtype=np.float64)
        routed = None if thresholds is None else routed_by(self.config, thresholds)
        columns: Any = tuple(np.asarray(schedules, dtype=np.int64).T)  # the formulas are vectorised
        return np.asarray(schedule_macs(self.config, columns, routed=routed), dtype=np.float64)

    def stem(self, lead: int) -> float:
        """Return the cost of the stem, which a second run does not repeat."""
        return float(stem_macs(self.config, lead))


@dataclass(frozen=True)
class MeasuredCost:
    """Cost in milliseconds per image, interpolated between measured trunks.

    A measured trunk holds all tokens before step `lead` (from 0) and the same number of tokens at each step from
    `lead`. `held` are these numbers, ascending, and `ms` the median latencies. The cost of a schedule is `stem_ms`
    plus the mean of the interpolated latencies of its steps from `lead`.
    """

    held: tuple[int, ...]
    ms: tuple[float, ...]
    stem_ms: float
    lead: int = 0
    unit = "ms"

    def of(self, schedules: NDArray[np.int64], thresholds: Thresholds | None = None) -> NDArray[np.float64]:
        """Return the milliseconds (m,) of schedules (m, steps), including the stem; `thresholds` have no effect."""
        rising = np.maximum.accumulate(self.ms)  # noise must not make a larger bucket cheaper
        trunk = np.interp(np.asarray(schedules)[:, self.lead :], self.held, rising)
        ms: NDArray[np.float64] = self.stem_ms + trunk.mean(axis=1)
        return ms

    def stem(self, lead: int) -> float:
        """Return the cost of the stem."""
        return self.stem_ms


Costs = MacCost | MeasuredCost


def expand(
    schedules: NDArray[np.int64], routed: Sequence[int], steps: int, everyone: int
) -> NDArray[np.int64]:
    """Expand capacities at the routed steps (m, routed) to all steps (m, steps)."""
    full = np.full((len(schedules), steps), everyone, dtype=np.int64)
    for column, step in enumerate(routed):
        full[:, step:] = schedules[:, column : column + 1]
    return full
