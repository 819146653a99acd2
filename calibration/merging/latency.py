"""Which MACs fit into milliseconds: schedules of each family are measured, and interpolated between. No torch.

Families differ at equal MACs: merging costs time at each layer that merges, which MACs do not show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from morvit_deploy.calibration.merging.points import merged_macs
from morvit_deploy.calibration.merging.search import FAMILIES
from morvit_deploy.errors import PlanError
from morvit_deploy.model.config import Config
from morvit_deploy.model.merges.schedules import MergeSchedule, spread

PARTS = (1 / 3, 2 / 3, 1)  # of the tokens that can merge, for each family
Latency = Callable[[Sequence[MergeSchedule | None]], list[float]]  # median ms of an image; None: unmerged


@dataclass(frozen=True)
class LatencyCurve:
    """MACs of a family's schedules, ascending, and the milliseconds that they take; the unmerged ViT is last."""

    macs: tuple[float, ...]
    ms: tuple[float, ...]

    def macs_within(self, budget_ms: float) -> float | None:
        """Return the most MACs that fit into the milliseconds; None if even the least do not."""
        rising = np.maximum.accumulate(self.ms)  # noise must not make a larger schedule cheaper
        return None if budget_ms < rising[0] else float(np.interp(budget_ms, rising, self.macs))


@dataclass(frozen=True)
class MergeLatencies:
    """A curve for each family, and the milliseconds of the unmerged ViT."""

    curves: Mapping[str, LatencyCurve]
    unmerged_ms: float

    @classmethod
    def measured(cls, config: Config, unmerged: int, latency: Latency) -> MergeLatencies:
        """Measure all in one call, so that each meets the same conditions; `unmerged` are that ViT's MACs."""
        sampled = {kind: _samples(config, kind) for kind in FAMILIES}
        every = list(dict.fromkeys(merges for samples in sampled.values() for merges in samples))
        schedules = [MergeSchedule(merges=merges, proportional=True) for merges in every]
        *taken, unmerged_ms = latency([*schedules, None])
        ms = dict(zip(every, taken, strict=True))
        macs = {schedule.merges: merged_macs(config, schedule) for schedule in schedules}
        curves = {}
        for kind, samples in sampled.items():
            order = sorted(samples, key=macs.__getitem__)
            curves[kind] = LatencyCurve(
                (*(macs[merges] for merges in order), unmerged),
                (*(ms[merges] for merges in order), unmerged_ms),
            )
        return cls(curves, unmerged_ms)

    def budgets(self, budget_ms: float) -> dict[str, float]:
        """Return the MACs of each family that can meet the milliseconds; PlanError if none can, or all do."""
        least = min(min(curve.ms) for curve in self.curves.values())
        found = {kind: curve.macs_within(budget_ms) for kind, curve in self.curves.items()}
        budgets = {kind: macs for kind, macs in found.items() if macs is not None}
        if not budgets or not budget_ms < self.unmerged_ms:
            raise PlanError(
                f"budget_ms: got {budget_ms:g}, expected {least:.3g} to {self.unmerged_ms:.3g} ms, what the ViT "
                "takes here with the most merges and without any; for less, take more threads or a smaller model"
            )
        return budgets

    def possible(self, budgets: Mapping[str, float]) -> dict[str, float]:
        """Return the budgets of MACs that their families can meet."""
        return {kind: macs for kind, macs in budgets.items() if macs >= self.curves[kind].macs[0]}


def _samples(config: Config, kind: str) -> list[tuple[int, ...]]:
    """Merges of a family, with proportional attention, which takes longer: each costs at most what is measured."""
    weights = FAMILIES[kind](config)
    most = sum(spread(config, config.num_patches, weights))
    return list(dict.fromkeys(spread(config, max(1, round(part * most)), weights) for part in PARTS))
