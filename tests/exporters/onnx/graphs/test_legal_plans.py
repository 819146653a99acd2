"""Every plan that fits its checkpoint can be exported, whichever side chooses the bucket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adaptive_plans import depth_plan, threshold_plan
from config_matrix import named
from tiny_models import make_config

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.routings.schedules import last_step_decides

ONE_STEP = {"sharing": "none", "cycle_depth": 1}
CONFIGS: list[tuple[dict[str, Any], str]] = [
    # nothing but the overflow of `full` reads which of its tokens run
    ({**ONE_STEP, "attention_scope": "all", "gate": "block"}, "graph"),
    ({**ONE_STEP, "attention_scope": "all", "gate": "block"}, "host"),
    ({"sharing": "none", "cycle_depth": 2, "attention_scope": "all", "gate": "block"}, "graph"),
    ({**ONE_STEP, "attention_scope": "active", "gate": "delta"}, "graph"),
    ({"sharing": "cycle", "attention_scope": "all", "gate": "delta"}, "graph"),
    ({"sharing": "cycle", "attention_scope": "active", "gate": "hard"}, "host"),
    ({"routing": "token_choice", "sharing": "none", "attention_scope": "all"}, "graph"),
    ({"routing": "token_choice", "sharing": "cycle", "attention_scope": "active"}, "host"),
]
FAST = 2  # the others are slow


def plan_of(config: Config) -> Plan:
    """Two buckets."""
    steps = config.num_steps
    if config.record.depth_upfront:
        return depth_plan(config, [(16, *(9, 4, 2, 1)[: steps - 1])])
    last = 0.0 if last_step_decides(config) else None
    return threshold_plan(config, (*(0.0,) * (steps - 1), last), [_held(steps, last)])


def _held(steps: int, last: float | None) -> tuple[int, ...]:
    held = (8, 5, 2)[:steps]
    return held if last is not None else (*held[:-1], held[-2])


@pytest.mark.parametrize(
    ("changes", "dispatch"),
    [
        pytest.param(*case, id=f"{named(case[0])}-{case[1]}", marks=[] if number < FAST else pytest.mark.slow)
        for number, case in enumerate(CONFIGS)
    ],
)
def test_a_legal_plan_is_exported(
    exported: Callable[..., Path], changes: dict[str, Any], dispatch: str
) -> None:
    config = make_config(**changes)
    manifest = open_manifest(exported(config, plan=plan_of(config), dispatch=dispatch))
    assert manifest.structure["proved"] and manifest.parity is not None and manifest.parity["passed"]
