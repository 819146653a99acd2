"""Constructed router logits do what their scripts say, in the static graph that a written one is compared with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from adaptive_plans import depth_plan, needed, threshold_plan
from bucket_plans import EXPERT, TOKEN
from tiny_models import make_config, random_model

from morvit_deploy.exporters.base import example_image
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import StaticMoRViT, unroll_plan
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan
from morvit_deploy.verifying.constructed import chosen_bucket, counts_at_bounds, scripts_of
from morvit_deploy.verifying.replay import exact_copies, first_difference, replay

LADDER = threshold_plan(EXPERT, (0.3, None, -0.2), [(4, 4, 1), (8, 8, 2)], upto=(4, 8))
DEPTHS = depth_plan(TOKEN, [(16, 9, 4), (16, 12, 7)])


def exact(config: Config, plan: Plan, style: str = "one-image") -> dict[str, StaticMoRViT]:
    graphs = unroll_plan(random_model(config), plan, Options(style=STYLES[style], with_depth=True))
    return exact_copies(graphs, np.float32)


@pytest.mark.parametrize("style", ["one-image", "rows", "bsd-onehot", "bc1s-topk"])
@pytest.mark.parametrize("bucket", ["b0", "b1", "full"])
def test_a_script_fills_the_capacities(style: str, bucket: str) -> None:
    graph = exact(EXPERT, LADDER, style)[bucket]
    image = example_image(graph, 2 if style == "rows" else 1)
    whats = []
    for script in scripts_of(graph):
        values = replay(graph, image, script).values
        assert script.counts is not None
        overflows = any(a > b for a, b in zip(script.counts, graph.capacity, strict=True))
        assert (values["overflow"] == overflows).all()
        if not script.decisions_only:
            assert (values["step3.runs"].reshape(len(image), -1).sum(axis=1) == script.counts[2]).all()
        whats.append(script.what)
    assert len(whats) == (2 if bucket == "full" else 4), "the second step has no threshold"


def test_thresholds_are_met_exactly_and_missed_by_one_step() -> None:
    graph = exact(EXPERT, LADDER)["b0"]
    given = replay(graph, example_image(graph, 1), scripts_of(graph)[0]).given["step1.router_logits"]
    threshold = np.float32(0.3)
    below = np.nextafter(threshold, np.float32(-np.inf))
    assert {float(threshold), float(below)} <= {*given.ravel().tolist()}


def test_depths_run_as_many_tokens_as_demanded() -> None:
    graph = exact(TOKEN, DEPTHS)["b0"]
    for script in scripts_of(graph):
        depth = replay(graph, example_image(graph, 1), script).values["depth"][0]
        assert tuple((depth >= layer).sum() for layer in (1, 2, 3)) == (16, *(script.counts or ())[1:])


@pytest.mark.parametrize(
    ("config", "plan"), [(EXPERT, LADDER), (TOKEN, DEPTHS)], ids=["thresholds", "depths"]
)
def test_counts_reach_every_bucket_on_both_sides_of_its_bound(config: Config, plan: Plan) -> None:
    found = counts_at_bounds(plan, config.num_patches)
    assert {chosen_bucket(plan, counts) for counts in found} == {0, 1, 2}
    assert all(chosen_bucket(plan, counts) == needed(plan, counts) for counts in found)
    assert all(list(counts) == sorted(counts, reverse=True) for counts in found)
    if plan.mode == "threshold":
        leads = {counts[0] for counts in found}
        assert {4, 5, 8, 9, 16} <= leads


def test_the_first_value_that_differs_is_named() -> None:
    config = make_config()
    one, other = random_model(config), random_model(config)
    dict(other.layers())["cycle.0"].mlp.fc1.bias[0] += 1e-4
    plan = threshold_plan(config, (0.0, 0.0, 0.0), [])
    values = []
    for model in (one, other):
        graphs = exact_copies(unroll_plan(model, plan), np.float32)
        image = torch.zeros(1, 32, 32, 3, dtype=torch.uint8)
        values.append(replay(graphs["full"], image, scripts_of(graphs["full"])[0]).values)
    assert first_difference(values[0], values[0]) is None
    assert "value 'step1.state' differs by" in str(first_difference(*values))
