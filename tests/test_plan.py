"""Plans: the ladder of buckets, and the plan that needs no calibration."""

from __future__ import annotations

from typing import Any

import pytest
from combos import EVERY, named
from conftest import make_config
from pydantic import ValidationError

from morvit_deploy.macs import schedule_macs
from morvit_deploy.plan import Bucket, Plan, own_plan

B0 = {"name": "b0", "capacity": [4, 2], "macs": 10, "share": 0.4}
FULL = {"name": "full", "capacity": [16, 16], "macs": 99}
GOOD: dict[str, Any] = {"format": "morvit-plan/1", "mode": "topk", "thresholds": None, "buckets": [B0, FULL]}


def read(**changes: Any) -> Plan:
    import json

    return Plan.model_validate_json(json.dumps({**GOOD, **changes}))


@pytest.mark.parametrize("changes", EVERY, ids=named)
def test_the_own_plan_is_the_checkpoints_schedule(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    plan = own_plan(config)
    (bucket,) = plan.buckets
    assert bucket.macs == schedule_macs(config, bucket.capacity)
    if config.routing == "expert_choice":
        assert (plan.mode, bucket.capacity) == ("topk", config.capacity)
    else:
        assert bucket.name == "full"
        assert bucket.capacity == (16,) * config.num_steps
    assert (plan.mode == "depth") == (config.routing == "token_choice")


def test_a_plan_round_trips() -> None:
    plan = read(mode="threshold", thresholds=[0.5, -1.25], calibration={"images": 3})
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert plan.buckets[0] == Bucket(name="b0", capacity=(4, 2), macs=10, share=0.4)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "morvit-plan/2"},
        {"mode": "best"},
        {"mode": "threshold"},
        {"thresholds": [0.5]},
        {"mode": "threshold", "thresholds": [float("nan")]},
        {"buckets": []},
        {"buckets": [B0, B0]},
        {"buckets": [{**B0, "capacity": []}]},
        {"buckets": [{**B0, "capacity": [0]}]},
        {"buckets": [{**B0, "share": 1.2}]},
        {"buckets": [{**B0, "name": "../b0"}]},
        {"buckets": [{**B0, "macs": 1.5}]},
        {"surprise": 1},
    ],
    ids=str,
)
def test_an_impossible_plan_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        read(**changes)
