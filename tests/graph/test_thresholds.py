"""Threshold and depth buckets in float64 against the ragged reference, which routes one image at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adaptive_plans import depth_plan, threshold_plan
from config_matrix import OWNING, named
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import EXACT, make_config, normalised, random_model, random_pixels

from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan, is_own, own_plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Outcome, Routing

N, STEPS = 16, 3
EXPERT: list[dict[str, Any]] = [
    {"sharing": sharing, "attention_scope": scope, "gate": gate, "cycle_depth": depth}
    for sharing in ("middle_cycle", "cycle")
    for scope in ("active", "all")
    for gate, depth in (("block", 1), ("delta", 2), ("hard", 2))
]
TOKEN: list[dict[str, Any]] = [
    {"routing": "token_choice", "sharing": sharing, "attention_scope": scope}
    for sharing in ("middle_cycle", "cycle", "none")
    for scope in ("active", "all")
]


def hold(model: MoRViT, plan: Plan, count: int = 6) -> None:
    """Every image in every bucket, alone and in a batch: the capped reference, and the ragged one where it fits."""
    config = model.config
    pixels = random_pixels(config, count)
    ragged = model(normalised(config, pixels), Routing(thresholds=plan.thresholds))
    for bucket in plan.buckets:
        capped = model(normalised(config, pixels), Routing(plan.thresholds, bucket.capacity))
        for style in (STYLES["rows"], STYLES["one-image"]):
            graph = unroll(model, bucket, Options(with_depth=True, style=style), plan)
            parts = [pixels[i : i + 1] for i in range(count)] if style.single else [pixels]
            answers = [graph(torch.from_numpy(part)) for part in parts]
            found = {
                name: torch.cat([a[name] for a in answers])
                for name in ("logits", "depth", "overflow")
                if name in answers[0]
            }
            _alike(found, capped, config)
        fits = [all(a <= b for a, b in zip(t.counts, bucket.capacity, strict=True)) for t in ragged.traces]
        assert fits == [not trace.overflow for trace in capped.traces]
        assert torch.equal(ragged.logits[fits], capped.logits[fits])


def _alike(found: dict[str, torch.Tensor], wanted: Outcome, config: Config) -> None:
    scale = max(1.0, float(wanted.logits.abs().max()))
    assert (found["logits"] - wanted.logits).abs().max() <= EXACT * scale
    if "overflow" in found:
        assert found["overflow"].tolist() == [trace.overflow for trace in wanted.traces]
    if config.routing == "expert_choice":
        assert torch.equal(found["depth"].long(), wanted.depth)


@pytest.mark.parametrize("changes", EXPERT, ids=str)
@pytest.mark.parametrize("tau", [(0.1, 0.0, 0.2), (None, -0.2, 0.1), (0.2, None, -0.3)], ids=str)
def test_threshold_buckets_are_the_ragged_model(
    changes: dict[str, Any], tau: tuple[float | None, ...]
) -> None:
    config = make_config(**changes)
    first = N if tau[0] is None else 9
    second = first if tau[1] is None else 5
    plan = threshold_plan(
        config,
        tau,
        [
            (first, second, 2),
            (N if tau[0] is None else 12,) * (1 if tau[1] is not None else 2)
            + (9, 9)[: 2 if tau[1] is not None else 1],
        ],
    )
    hold(random_model(config, dtype=torch.float64), plan)


@pytest.mark.parametrize("changes", EXPERT, ids=str)
@pytest.mark.parametrize("edge", [-1e30, 1e30])
def test_all_stay_and_all_leave(changes: dict[str, Any], edge: float) -> None:
    config = make_config(**changes)
    plan = threshold_plan(config, (edge, 0.0, 0.1), [(1, 1, 1), (8, 3, 1)])
    hold(random_model(config, dtype=torch.float64), plan, count=3)


@pytest.mark.parametrize("changes", TOKEN, ids=str)
def test_depth_buckets_are_the_ragged_model(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    steps = config.num_steps
    falling = tuple(max(1, N - 4 * s) for s in range(steps))
    plan = depth_plan(config, [falling, (N, *(max(1, N - 2 * s) for s in range(1, steps)))])
    hold(random_model(config, dtype=torch.float64), plan)


@pytest.mark.parametrize("changes", OWNING, ids=named)
def test_buckets_of_a_checkpoint_with_thresholds_are_the_checkpoint(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    assert config.thresholds is not None and config.capacity is not None
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 4)
    plan = threshold_plan(config, config.thresholds, [config.capacity])
    assert is_own(plan, config) and is_own(own_plan(config), config)
    trained, ragged = (
        model(normalised(config, pixels)),
        model(normalised(config, pixels), Routing(config.thresholds)),
    )
    assert torch.equal(trained.logits, ragged.logits) and torch.equal(trained.depth, ragged.depth)
    hold(model, plan)
    hold(model, own_plan(config))


@pytest.mark.parametrize("style", ["rows", "one-image"])
@pytest.mark.parametrize("tau", [(0.1, 0.0, 0.2), (None, -0.2, 0.1)], ids=str)
def test_the_stem_counts_the_tokens_of_the_first_routed_step(
    tau: tuple[float | None, ...], style: str
) -> None:
    config = make_config()
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 3)
    plan = threshold_plan(config, tau, [])
    ragged = model(normalised(config, pixels), Routing(thresholds=tau))
    graph = unroll(model, plan.buckets[0], Options(style=STYLES[style]), plan)
    parts = [pixels[i : i + 1] for i in range(3)] if graph.options.single else [pixels]
    counts = [graph.counts(graph.begin(torch.from_numpy(part), {})).reshape(-1) for part in parts]
    assert torch.cat(counts).tolist() == [trace.counts[plan.lead] for trace in ragged.traces]


def test_one_token_left() -> None:
    config = make_config()
    model = random_model(config, dtype=torch.float64)
    z = (
        model(normalised(config, random_pixels(config, 1)), Routing(thresholds=(None,) * STEPS))
        .traces[0]
        .decisions
    )
    second, highest = z[0].router_logits.sort().values[-2:].tolist()
    plan = threshold_plan(config, ((second + highest) / 2, None, None), [(1, 1, 1)])
    outcome = model(normalised(config, random_pixels(config, 1)), Routing(thresholds=plan.thresholds))
    assert outcome.traces[0].counts == (1, 1, 1)
    hold(model, plan)


@given(data=st.data())
def test_any_schedule_and_thresholds(data: st.DataObject) -> None:
    changes = data.draw(st.sampled_from(EXPERT))
    config = make_config(**changes)
    tau = data.draw(st.tuples(*[st.one_of(st.none(), st.floats(-1.5, 1.5, width=32))] * STEPS))
    ladder = []
    for _ in range(data.draw(st.integers(0, 2)) if any(t is not None for t in tau) else 0):
        held, schedule = N, []
        for threshold in tau:
            held = held if threshold is None else data.draw(st.integers(1, held))
            schedule.append(held)
        ladder.append(tuple(schedule))
    hold(
        random_model(config, seed=data.draw(st.integers(0, 5)), dtype=torch.float64),
        threshold_plan(config, tau, ladder),
        count=3,
    )
