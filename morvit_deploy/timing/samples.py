"""Raw samples of a measurement. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

import numpy as np

from morvit_deploy.timing.arithmetic import OVERFLOWED

PERCENTILES = (50, 90, 99)


def percentiles(samples_ms: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99 of raw samples, in their unit, by linear interpolation."""
    values = np.percentile(np.asarray(samples_ms, dtype=np.float64), PERCENTILES)
    return {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, values, strict=True)}


@dataclass(frozen=True)
class Start:
    """Start of a new process, milliseconds: until its first result, and of that loading and the first run."""

    cold_start_ms: float  # interpreter and imports included
    load_ms: float  # checking hashes and creating the session; imports excluded
    first_run_ms: float
    anonymous_mib: float | None  # before the bundle was opened
    resident_mib: float | None = None  # before the bundle was opened, including the runtime's code


@dataclass(frozen=True)
class Block:
    """Consecutive runs of one bundle, milliseconds each; the warm-up runs before them are separate."""

    ms: tuple[float, ...]
    warmup_ms: tuple[float, ...] = ()
    others_percent: float | None = 0.0  # of all cores, used by other processes meanwhile; None: not readable
    bucket: tuple[tuple[str, ...], ...] = ()  # that ran last, for each run and image of an adaptive bundle
    overflow: tuple[tuple[bool, ...], ...] = ()  # of the predicted bucket, where one is predicted

    @property
    def median_ms(self) -> float:
        """Median of the runs."""
        return median(self.ms)

    @property
    def mean_ms(self) -> float:
        """Mean of the runs."""
        return fmean(self.ms)

    @property
    def kinds(self) -> list[str]:
        """The kind of each image, run after run: its bucket, or OVERFLOWED; none where none is chosen."""
        names = [name for run in self.bucket for name in run]
        flags = [flag for run in self.overflow for flag in run] if names else []
        pairs = zip(names, flags or [False] * len(names), strict=True)
        return [OVERFLOWED if flag else name for name, flag in pairs]

    def as_dict(self) -> dict[str, Any]:
        """Every raw sample, with the bucket of each image of an adaptive bundle."""
        plain = {
            "ms": list(self.ms),
            "warmup_ms": list(self.warmup_ms),
            "others_percent": self.others_percent,
        }
        chosen = {"bucket": self.bucket, "overflow": self.overflow}
        return plain | {name: [list(run) for run in runs] for name, runs in chosen.items() if runs}
