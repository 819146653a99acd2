"""Plans of several buckets that synthetic pictures use all of, for what measures them."""

from __future__ import annotations

from adaptive_plans import depth_plan, threshold_plan
from tiny_models import make_config

from morvit_deploy.model.plan import Plan

SHARES = {"b0": 0.5, "b1": 0.3, "full": 0.2}
OVERFLOW = 0.1
EXPERT, TOKEN = make_config(), make_config(routing="token_choice", num_recursions=1)


def threshold_ladder() -> Plan:
    """Of the tiny model: 64 synthetic pictures are answered by each bucket, and some overflow."""
    plan = threshold_plan(EXPERT, (0.0, 0.0, 0.0), [(4, 4, 1), (8, 6, 2)], upto=(4, 8))
    changes = zip(plan.buckets, SHARES.values(), strict=True)
    buckets = tuple(bucket.model_copy(update={"share": part}) for bucket, part in changes)
    return plan.model_copy(update={"buckets": buckets, "calibration": {"overflow": OVERFLOW}})


STEPPED = (0.3, 0.0, -0.2)


def stepped_ladder() -> Plan:
    """One threshold for each step, so that two that changed places show."""
    return threshold_plan(EXPERT, STEPPED, [(4, 4, 1), (8, 6, 2)], upto=(4, 8))


def depth_ladder() -> Plan:
    """Of a token_choice model of three layers; it says nothing of its calibration."""
    return depth_plan(TOKEN, [(16, 9, 4)])
