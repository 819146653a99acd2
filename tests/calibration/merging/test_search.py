"""The search for merges: every schedule is within its budget, and moves only improve."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import make_config, random_model, random_pixels

from morvit_deploy.calibration.merging.evaluating import Evaluation
from morvit_deploy.calibration.merging.points import (
    MergePoint,
    budget_of,
    divergence,
    least_macs,
    merged_macs,
    within,
)
from morvit_deploy.calibration.merging.search import (
    FAMILIES,
    best_of,
    curve,
    families,
    moved,
    neighbors,
    searched,
)
from morvit_deploy.errors import PlanError
from morvit_deploy.model.config import Config
from morvit_deploy.model.merges.schedules import MergeSchedule, earliest, even
from morvit_deploy.model.merges.tokens import with_schedule
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.routings.merged import sides

LOGIT_TOLERANCE = 1e-4  # float32: the static graph and the reference add in another order


@pytest.fixture(scope="module")
def config() -> Config:
    return make_config(routing="none", sharing="none", cycle_depth=5)


class Invented:
    """Merges at a layer change the results by a number of their own."""

    costs = (5.0, 0.1, 3.0, 0.2)

    def __init__(self, config: Config) -> None:
        self.config, self.seen = config, list[MergeSchedule]()

    def measure(self, kind: str, schedule: MergeSchedule) -> MergePoint:
        self.seen.append(schedule)
        change = sum(c * n for c, n in zip(self.costs, schedule.merges, strict=True))
        change += schedule.proportional
        return MergePoint(kind, schedule, merged_macs(self.config, schedule), 1.0, change, None)


def budget(config: Config, share: float) -> float:
    return share * own_plan(config).buckets[0].macs


def test_the_fewest_merges_within_a_budget(config: Config) -> None:
    for weights in FAMILIES.values():
        found = within(config, weights(config), budget(config, 0.8), proportional=True)
        assert found is not None and found.proportional
        assert merged_macs(config, found) <= budget(config, 0.8)
        assert within(config, weights(config), merged_macs(config, found) - 1, proportional=True) != found
    assert within(config, even(config), 1.0, proportional=False) is None


def test_the_search_improves_within_the_budget(config: Config) -> None:
    measures, limit = Invented(config), budget(config, 0.75)
    found = families(config, dict.fromkeys(FAMILIES, limit), measures)
    assert len(found) == 2 * len(FAMILIES)
    start = best_of(found)
    best = searched(config, start, limit, measures, tries=60)
    assert best.divergence < start.divergence and not best.schedule.proportional
    assert best.macs <= limit
    assert all(merged_macs(config, one) <= limit for one in measures.seen)
    assert len({one.merges for one in measures.seen[6:]}) == len(measures.seen[6:])


def test_the_search_runs_at_most_so_many_schedules(config: Config) -> None:
    measures = Invented(config)
    start = best_of(families(config, dict.fromkeys(FAMILIES, budget(config, 0.75)), measures))
    before = len(measures.seen)
    searched(config, start, budget(config, 0.75), measures, tries=3)
    assert len(measures.seen) - before == 3
    assert searched(config, start, budget(config, 0.75), measures, tries=0) is start


def test_moves(config: Config) -> None:
    schedule = MergeSchedule(merges=(2, 2, 2, 2), proportional=False)
    macs = merged_macs(config, schedule)
    later = moved(config, schedule, 0, 1, 1, macs)
    assert (
        later is not None and later[0] == 1 and later[1] > 3
    )  # later merges save less, so more of them are needed
    assert moved(config, schedule, 1, 0, 1, macs) == (3, 1, 2, 2)
    assert moved(config, schedule, 0, 1, 3, macs) is None
    assert list(neighbors(3)) == [(0, 1), (1, 0), (1, 2), (2, 1)]


def test_the_curve_has_a_point_for_each_share_that_can_be_met(config: Config) -> None:
    measures, dense = Invented(config), own_plan(config).buckets[0].macs
    start = best_of(families(config, dict.fromkeys(FAMILIES, budget(config, 0.75)), measures))
    points = list(curve(config, start, dense, measures))
    assert points and all(point.kind == start.kind for point in points)
    assert [point.macs for point in points] == sorted((point.macs for point in points), reverse=True)


def test_budgets(config: Config) -> None:
    dense, least = own_plan(config).buckets[0].macs, least_macs(config, earliest(config))
    assert budget_of("0.8x", dense, least) == 0.8 * dense
    assert budget_of(least, dense, least) == budget_of(str(least), dense, least) == least
    for wrong in ("1x", "0.01x", "x", "", "much", "nan", -1, dense, least - 1):
        with pytest.raises(PlanError, match=r"budget_macs: got .*, expected .* MACs, or 0.* to 1x"):
            budget_of(wrong, dense, least)
    merges, tokens = [], config.num_tokens
    for _ in range(config.num_layers - 1):
        merges.append(sides(tokens)[0])
        tokens -= merges[-1]
    assert least == merged_macs(config, MergeSchedule(merges=tuple(merges), proportional=False))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_divergence(activation: str) -> None:
    logits = np.array([[1.0, 2.0, -1.0], [0.0, 0.5, 3.0]])
    assert divergence(logits, logits, activation).tolist() == [0, 0]
    assert (divergence(logits, -logits, activation) > 0).all()
    p, q = (np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in (logits, logits * 2))
    if activation == "softmax":
        assert divergence(logits, logits * 2, activation) == pytest.approx((p * np.log(p / q)).sum(axis=1))


def test_an_evaluation_is_what_the_reference_says(config: Config) -> None:
    model, pixels = random_model(config), random_pixels(config, 20)
    evaluation = Evaluation(model, pixels, [0] * 10 + [None] * 10)
    schedule = MergeSchedule(merges=(3, 0, 2, 1), proportional=True)
    point = evaluation.measure("even", schedule)
    from tiny_models import normalised

    images = normalised(config, pixels).float()
    unmerged, merged = model(images).logits, with_schedule(model, schedule)(images).logits
    assert np.abs(evaluation.logits - unmerged.numpy()).max() <= LOGIT_TOLERANCE
    assert point.agreement == (unmerged.argmax(1) == merged.argmax(1)).double().mean().item()
    assert point.divergence == pytest.approx(
        divergence(unmerged.numpy(), merged.numpy(), "softmax").mean(), rel=1e-2
    )
    assert point.top1 == (merged[:10].argmax(1) == 0).double().mean().item()
