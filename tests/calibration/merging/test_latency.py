"""Milliseconds as MACs: measured schedules of each family, and what lies between. Nothing is timed here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from tiny_models import make_config

from morvit_deploy.calibration.merging.latency import LatencyCurve, MergeLatencies
from morvit_deploy.calibration.merging.points import least_macs, merged_macs
from morvit_deploy.calibration.merging.search import FAMILIES
from morvit_deploy.errors import PlanError
from morvit_deploy.model.merges.schedules import MergeSchedule, earliest
from morvit_deploy.model.plan import own_plan

CONFIG = make_config(routing="none", sharing="none", cycle_depth=5)
UNMERGED = own_plan(CONFIG).buckets[0].macs


def invented(schedules: Sequence[MergeSchedule | None]) -> list[float]:
    """A millisecond for each percent of the unmerged ViT's MACs, and half of one for each layer that merges."""
    return [
        100.0
        if schedule is None
        else 100 * merged_macs(CONFIG, schedule) / UNMERGED + sum(map(bool, schedule.merges)) / 2
        for schedule in schedules
    ]


def test_between_measured_points_is_a_line() -> None:
    curve = LatencyCurve((10.0, 20.0, 40.0), (1.0, 2.0, 6.0))
    assert curve.macs_within(4.0) == 30.0 and curve.macs_within(1.0) == 10.0
    assert curve.macs_within(0.99) is None


def test_noise_makes_no_larger_schedule_cheaper() -> None:
    curve = LatencyCurve((10.0, 20.0, 30.0), (3.0, 2.0, 4.0))
    assert curve.macs_within(2.5) is None and curve.macs_within(3.5) == pytest.approx(25.0)


def test_families_that_merge_at_more_layers_get_fewer_macs() -> None:
    latencies = MergeLatencies.measured(CONFIG, UNMERGED, invented)
    assert latencies.unmerged_ms == 100 and set(latencies.curves) == set(FAMILIES)
    for curve in latencies.curves.values():
        assert list(curve.macs) == sorted(curve.macs) and curve.macs[-1] == UNMERGED
    budgets = latencies.budgets(90.0)
    assert budgets["even"] < budgets["earliest"] < 0.9 * UNMERGED


def test_each_schedule_is_measured_once_and_in_one_call() -> None:
    calls: list[Sequence[MergeSchedule | None]] = []

    def latency(schedules: Sequence[MergeSchedule | None]) -> list[float]:
        calls.append(schedules)
        return invented(schedules)

    MergeLatencies.measured(CONFIG, UNMERGED, latency)
    (schedules,) = calls
    merges = [schedule and schedule.merges for schedule in schedules]
    assert len(set(merges)) == len(merges) and merges[-1] is None
    assert all(schedule.proportional for schedule in schedules if schedule is not None)


@pytest.mark.parametrize("budget_ms", [1.0, 100.0, 1e9, math.nan])
def test_a_budget_that_none_or_all_meet(budget_ms: float) -> None:
    with pytest.raises(PlanError, match=r"budget_ms: got .*, expected .* to 100 ms"):
        MergeLatencies.measured(CONFIG, UNMERGED, invented).budgets(budget_ms)


def test_budgets_below_what_a_family_can_merge_are_left_out() -> None:
    latencies = MergeLatencies.measured(CONFIG, UNMERGED, invented)
    least = least_macs(CONFIG, earliest(CONFIG))
    mixed = {"even": 0.9 * UNMERGED, "earliest": float(least), "decreasing": least - 1.0}
    assert latencies.possible(mixed) == {"even": 0.9 * UNMERGED, "earliest": float(least)}
    assert latencies.possible(dict.fromkeys(FAMILIES, least - 1.0)) == {}
