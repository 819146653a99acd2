"""Following tokens: the first stage to diverge is found on either side of either gap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from flat_models import CLS_RUNS, wandering_model
from tiny_models import make_config, normalised, own_bucket, random_model, random_pixels

from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import unroll, unroll_plan
from morvit_deploy.model.trace import Routing
from morvit_deploy.verifying.routes import Routes

CONFIGS: dict[str, dict[str, Any]] = {
    "middle_cycle": {},
    "cycle": {"sharing": "cycle"},
    "all": {"attention_scope": "all", "gate": "delta"},
    "flat": {"routing": "expert_choice_flat", "capacity": [9, 17, 4]},
    "token_choice": {"routing": "token_choice", "gate": "hard", "attention_scope": "all", "capacity": None},
    "none": {"routing": "none", "gate": "hard", "capacity": None, "router": None},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_reference_and_graph_do_not_diverge_until_one_is_changed(name: str) -> None:
    config = make_config(**CONFIGS[name])
    model = random_model(config, dtype=torch.float64)
    pixels = random_pixels(config, 3)
    graph = unroll(model, own_bucket(config), Options(style=STYLES["rows"]))
    routes = Routes(config, own_bucket(config).capacity)
    reference = routes.stages_of_reference(model(normalised(config, pixels)))
    static = routes.stages_of({k: v.numpy() for k, v in graph(torch.from_numpy(pixels)).items()})
    clear = np.array([True, False, True])
    assert routes.first_divergence(reference, static, clear, before=8) is None
    shared = [stage for stage in reference if stage in static]
    assert len(shared) >= 3, shared
    changed = {**static, shared[1]: static[shared[1]].copy()}
    changed[shared[1]][2] += 1
    told = routes.first_divergence(reference, changed, clear, before=8)
    assert told is not None and told.startswith(shared[1]) and "image 10" in told
    changed[shared[1]][2] -= 1
    changed[shared[1]][1] += 1  # an image that is not judged
    assert routes.first_divergence(reference, changed, clear, before=8) is None


LADDERS: dict[str, tuple[dict[str, Any], tuple[float | None, ...] | None, list[tuple[int, ...]]]] = {
    "threshold": ({}, (0.1, 0.0, 0.2), [(4, 3, 1), (8, 6, 2), (12, 12, 1)]),
    "later lead": ({"gate": "hard", "cycle_depth": 2}, (None, 0.0, 0.2), [(16, 9, 3)]),
    "a step not routed": ({"attention_scope": "all", "gate": "delta"}, (0.1, None, 0.2), [(7, 7, 2)]),
    "cycle": ({"sharing": "cycle", "attention_scope": "all"}, (0.1, 0.0, 0.2), [(9, 6, 6)]),
    "depth": ({"routing": "token_choice"}, None, [(16, 8, 5, 3, 1), (16, 9, 9, 9, 1)]),
    "depth, active": ({"routing": "token_choice", "attention_scope": "active"}, None, [(16, 8, 5, 3, 1)]),
}


@pytest.mark.parametrize("name", LADDERS)
def test_who_runs_each_step_of_a_bucket(name: str) -> None:
    """Pads do not run; an image that needs more than a bucket holds keeps the same tokens on both sides."""
    changes, taus, ladder = LADDERS[name]
    config = make_config(**changes)
    plan = depth_plan(config, ladder) if taus is None else threshold_plan(config, taus, ladder)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 4)
    everyone = np.ones(4, dtype=bool)
    for bucket_name, graph in unroll_plan(model, plan, Options(style=STYLES["rows"])).items():
        capacity = plan.bucket(bucket_name).capacity
        outcome = model(normalised(config, pixels), Routing(taus, capacity))
        outputs = {k: v.numpy() for k, v in graph(torch.from_numpy(pixels)).items()}
        routes = Routes(config, capacity, taus)
        runs = routes.runs(outputs)
        assert runs is not None
        for step in range(config.num_steps):
            kept = [set(trace.decisions[step].kept.tolist()) for trace in outcome.traces]
            assert [set(np.flatnonzero(row).tolist()) for row in runs[step]] == kept
        alike = routes.decisions_alike(outcome, outputs, everyone)
        assert alike is not None and (alike[:, 0] == alike[:, 1]).all()
        wanted, found = routes.stages_of_reference(outcome), routes.stages_of(outputs)
        assert {f"step{step}.runs" for step in range(1, config.num_steps + 1)} <= set(wanted) & set(found)
        assert routes.first_divergence(wanted, found, everyone, before=0) is None


def test_a_decision_that_differs_is_counted_at_its_step() -> None:
    config = make_config()
    plan = threshold_plan(config, (0.1, 0.0, 0.2), [(8, 6, 2)])
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 2)
    outcome = model(normalised(config, pixels), Routing(plan.thresholds, plan.buckets[0].capacity))
    graph = unroll_plan(model, plan, Options(style=STYLES["rows"]))["b0"]
    outputs = {k: v.numpy().copy() for k, v in graph(torch.from_numpy(pixels)).items()}
    outputs["step2.runs"][1, 0] = False  # the likeliest of image 1 stands still
    routes = Routes(config, plan.buckets[0].capacity, plan.thresholds)
    alike = routes.decisions_alike(outcome, outputs, np.array([True, True]))
    assert alike is not None
    assert (alike[:, 1] - alike[:, 0]).tolist()[:2] == [0, 1]
    unjudged = routes.decisions_alike(outcome, outputs, np.array([True, False]))
    assert unjudged is not None and (unjudged[:, 0] == unjudged[:, 1]).all()


def test_cls_is_followed_where_it_is_routed() -> None:
    model = wandering_model(torch.float64)
    config, everyone = model.config, np.ones(3, dtype=bool)
    pixels = random_pixels(config, 3)
    outcome = model(normalised(config, pixels))
    graph = unroll(model, own_bucket(config), Options(style=STYLES["rows"]))
    outputs = {k: v.numpy().copy() for k, v in graph(torch.from_numpy(pixels)).items()}
    routes = Routes(config, own_bucket(config).capacity)
    runs, held = routes.runs(outputs), routes.held(outputs)
    assert runs is not None and held is not None
    assert (runs == outcome.runs.numpy()).all()
    assert runs[:, :, 0].all(axis=1).tolist() == [*CLS_RUNS]
    row = int(np.flatnonzero(held[1][2] == 0)[0])  # image 2: CLS changes places with the best at step 2
    for name in ("step2.order", "step2.state"):
        outputs[name][2, [0, row]] = outputs[name][2, [row, 0]]
    alike = routes.decisions_alike(outcome, outputs, everyone)
    assert alike is not None
    assert (alike[0] == 3 * 17).all()
    assert alike[1].tolist() == [3 * 17 - 2, 3 * 17]
    wanted, found = routes.stages_of_reference(outcome), routes.stages_of(outputs)
    told = routes.first_divergence(wanted, found, everyone, before=0)
    assert told is not None and told.startswith("step2.runs") and "image 2" in told
