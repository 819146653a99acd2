"""What is measured, and that graphs of every size run. What it takes is for a quiet machine, not for a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_setup import save_model
from tiny_models import make_config

from morvit_deploy.planning import schedule_costs
from morvit_deploy.planning.schedule_costs import equal_steps, measure_costs

EXPERT, TOKEN = make_config(), make_config(routing="token_choice", num_recursions=1)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PARTS": (0, 1), "BLOCKS": 2, "RUNS": 1, "WARMUP": 0}.items():
        monkeypatch.setattr(schedule_costs, name, value)


@pytest.mark.parametrize("taus", [None, (0.1, -0.2, 0.3)], ids=["top-k", "threshold"])
def test_the_same_number_of_tokens_at_every_step(taus: Any) -> None:
    plan = equal_steps(EXPERT, taus)
    assert [bucket.capacity for bucket in plan.buckets] == [(n,) * 3 for n in (1, 2, 4, 6, 8, 12, 16)]
    assert plan.mode == "threshold" and plan.thresholds == (0.0,) * 3 and plan.lead == 0
    assert [bucket.upto for bucket in plan.buckets] == [1, 2, 4, 6, 8, 12, 16]


def test_all_tokens_before_the_first_routed_step() -> None:
    plan = equal_steps(EXPERT, (None, 0.2, None))
    assert plan.thresholds == (None, 0.0, None) and plan.lead == 1
    assert plan.buckets[0].capacity == (16, 1, 1)


def test_token_choice_has_a_layer_for_a_step() -> None:
    plan = equal_steps(TOKEN, None)
    assert plan.mode == "depth" and plan.thresholds is None
    assert plan.buckets[-1].name == "full" and plan.buckets[-1].capacity == (16,) * 3
    assert plan.buckets[0].capacity == (16, 1, 1)  # every token runs the first layer


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize(
    ("changes", "taus", "lead"),
    [
        ({"num_recursions": 2, "capacity": [16, 6]}, (None, 0.2), 1),
        ({"routing": "token_choice", "num_recursions": 1}, None, 1),
    ],
    ids=["threshold", "token_choice"],
)
def test_graphs_of_every_size_run(tmp_path: Path, changes: dict[str, Any], taus: Any, lead: int) -> None:
    told: list[float] = []
    model = save_model(tmp_path / "model", **changes)
    cost = measure_costs(model, taus, threads=1, progress=told.append)
    assert cost.held == (1, 16) and len(cost.ms) == 2 and cost.lead == lead and cost.unit == "ms"
    assert min(*cost.ms, cost.stem_ms) > 0
    assert cost.of(np.full((1, 2), 16))[0] == cost.stem_ms + max(cost.ms)
    assert told == sorted(told) and told[-1] == 1.0 and len(told) == 2 + 3 * (1 + 2)
