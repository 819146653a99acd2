"""Plans drafted from points: they fit their checkpoint, and say what was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from calibration_setup import last_of, own_or_within, run_of
from tiny_models import make_config

from morvit_deploy.calibration.buckets.costs import MacCost
from morvit_deploy.calibration.buckets.plan import draft_plan, remarks_on
from morvit_deploy.calibration.buckets.points import points_of
from morvit_deploy.calibration.routing.sequence import OWN, SCALES
from morvit_deploy.calibration.routing.statistics import Statistics
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan, own_plan, plan_problems

CONFIG = make_config()  # 16 tokens; 12, 6, 3 go on
COUNTS = [[9, 5, 2], [4, 4, 1], [12, 6, 3], [12, 10, 6], [9, 4, 2]]
TAUS = ((0.1, 0.2, 0.3),) * len(SCALES)


def drafted(
    last: Statistics, config: Config = CONFIG, kind: str = "threshold", taus: Any = TAUS, **budget: float
) -> Plan:
    chosen = own_or_within(points_of(config, last, taus, MacCost(config), 3), kind, **budget)
    plan = draft_plan(config, last, chosen, "macs")
    assert plan_problems(plan, config) == []
    assert Plan.model_validate_json(plan.to_json()) == plan
    assert plan.checkpoint == "c" * 64
    return plan


def test_a_threshold_plan() -> None:
    decisions = np.tile([[60], [70], [80]], 7).T
    plan = drafted(last_of(CONFIG, COUNTS, **{"threshold.decisions": decisions}))
    assert plan.mode == "threshold" and plan.thresholds == TAUS[0] and plan.calibration is not None
    assert [bucket.name for bucket in plan.buckets] == ["b0", "b1", "full"]
    assert sum(bucket.share or 0 for bucket in plan.buckets) == 1
    facts = plan.calibration
    assert facts["images"] == 5 and facts["scale"] == OWN and facts["cost"] == "macs"
    assert facts["keep_share"] == (np.mean(COUNTS, axis=0) / 16).tolist()
    assert facts["decision_agreement"] == [60 / 80, 70 / 80, 1.0]
    assert facts["top1"] is None and facts["top1_agreement"] == 1.0


def test_the_images_are_dispatched_as_the_shares_say() -> None:
    plan = drafted(last_of(CONFIG, COUNTS))
    answered, overflow = plan.dispatched(np.array(COUNTS))
    chosen = np.searchsorted([bucket.upto for bucket in plan.buckets], np.array(COUNTS)[:, 0])
    assert [bucket.share for bucket in plan.buckets] == (np.bincount(chosen, minlength=3) / 5).tolist()
    assert plan.calibration is not None and overflow.mean() == plan.calibration["overflow"]
    cost = [plan.buckets[b].macs for b in answered]
    assert plan.calibration["expected_macs"] >= np.mean(cost)


def test_unrouted_steps_hold_what_the_step_before_does() -> None:
    config = make_config(capacity=[16, 6, 6])
    taus = ((None, 0.2, None),) * len(SCALES)
    plan = drafted(last_of(config, [[16, 9, 9], [16, 5, 5], [16, 9, 9]]), config, taus=taus)
    assert plan.lead == 1 and plan.buckets[0].capacity == (16, 5, 5)


def test_a_depth_plan() -> None:
    config = make_config(routing="token_choice", num_recursions=1)
    last = last_of(config, [[16, 9, 2], [16, 12, 5]], run_of("depth", scales=(OWN,)))
    plan = drafted(last, config, "depth", ((),))
    assert plan.mode == "depth" and plan.thresholds is None
    assert plan.calibration is not None and plan.calibration["scale"] is None
    assert "decision_agreement" not in plan.calibration


def test_top_k_plans() -> None:
    last = last_of(CONFIG, COUNTS, run_of("topk"))
    own = drafted(last, kind="topk")
    assert own.buckets == own_plan(CONFIG).buckets
    alike = np.array([5, 5, 4, 3, 2, 1, 0])
    few = drafted(
        last_of(CONFIG, COUNTS, run_of("topk"), **{"topk.alike": alike}), kind="topk", budget_macs=1e9
    )
    assert few.buckets[0].capacity == (4, 2, 1) and few.mode == "topk"


# --- remarks


def remarks(counts: Any, config: Config = CONFIG, taus: Any = TAUS, **budget: float) -> list[str]:
    last = last_of(config, counts)
    return remarks_on(
        config, last, own_or_within(points_of(config, last, taus, MacCost(config), 2), "threshold", **budget)
    )


def test_thresholds_that_part_the_tokens_get_no_remark() -> None:
    assert remarks(COUNTS) == []


@pytest.mark.parametrize(
    ("counts", "steps"),
    [
        ([[16, 6, 3]] * 2, ["step 1: the threshold 0.1 keeps every token"]),
        ([[12, 6, 0]] * 2, ["step 3: the threshold 0.3 keeps no token"]),
        ([[0, 0, 0]] * 2, ["step 1: the threshold 0.1 keeps no token"]),
        ([[16, 16, 16]] * 2, [f"step {i}: the threshold 0.{i} keeps every token" for i in (1, 2, 3)]),
    ],
    ids=["first keeps all", "last keeps none", "nobody is left to ask", "all keep all"],
)
def test_thresholds_that_decide_nothing_are_named(counts: Any, steps: list[str]) -> None:
    told = remarks(counts)
    assert [remark.split(" on these images")[0] for remark in told] == steps
    assert all("router's logits are nearly equal" in remark for remark in told)


def test_what_a_large_scale_asks_for_is_no_remark() -> None:
    """1.6 × 12 of 16 tokens are all of them."""
    last = last_of(CONFIG, [[16, 10, 5]] * 2, **{"threshold.alike": np.array([0, 0, 0, 0, 0, 0, 2])})
    chosen = own_or_within(points_of(CONFIG, last, TAUS, MacCost(CONFIG), 2), "threshold", budget_macs=1e12)
    assert chosen.scale == 1.6
    assert remarks_on(CONFIG, last, chosen) == []


def test_top_k_gets_no_remark() -> None:
    last = last_of(CONFIG, [[16, 16, 16]], run_of("topk"))
    assert (
        remarks_on(CONFIG, last, own_or_within(points_of(CONFIG, last, (), MacCost(CONFIG), 2), "topk")) == []
    )
