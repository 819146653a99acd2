"""The composed static graph against the reference, in float64, over every combination and over random schedules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from config_matrix import EVERY, EXPERT, OPTIONS, OWNING, named
from flat_models import CLS_RUNS, wandering_model
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import EXACT, make_config, normalised, own_bucket, random_model, random_pixels
from torch import Tensor

from morvit_deploy.graph.style.styles import STYLES, Options, style_for_batch
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Bucket
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Outcome

CLEAR = 1e-6  # router logits further apart than this rank alike in any order of float64 sums
ALONE = [{"cls_only": False}, {"frozen_keys": False}, {"fold": False}]
PLAIN = {"cls_only": False, "frozen_keys": False, "fold": False}


def both(
    config: Config, options: Options, batch: int, seed: int = 0, bucket: Bucket | None = None
) -> tuple[Outcome, dict[str, Tensor]]:
    """What the reference and the static graph answer on the same pictures."""
    model = random_model(config, seed, torch.float64)
    pixels = random_pixels(config, batch, seed)
    normal = normalised(config, pixels)
    graph = unroll(model, bucket or own_bucket(config), options)
    outcome = model(normal)
    assert min(trace.margin for trace in outcome.traces) > CLEAR
    return outcome, graph(torch.from_numpy(pixels) if options.input == "uint8" else normal)


def assert_same(outcome: Outcome, answer: dict[str, Tensor]) -> None:
    assert answer["logits"].shape == outcome.logits.shape
    assert (answer["logits"] - outcome.logits).abs().max() <= EXACT


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS, *OWNING], ids=named)
def test_equals_the_reference(changes: dict[str, Any], batch: int) -> None:
    assert_same(*both(make_config(**changes), Options(style=style_for_batch(batch)), batch))


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("changes", EVERY, ids=named)
def test_float_input_and_depth(changes: dict[str, Any], batch: int) -> None:
    config = make_config(**changes)
    outcome, answer = both(config, Options("float", True, style_for_batch(batch)), batch, seed=1)
    assert_same(outcome, answer)
    if config.routing != "none":
        assert answer["depth"].dtype == torch.uint8
        assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("off", [*ALONE, PLAIN], ids=lambda off: "-".join(off))
@pytest.mark.parametrize("changes", [*EVERY, *OPTIONS[:3]], ids=named)
def test_each_rewrite_may_be_left_out(changes: dict[str, Any], off: dict[str, bool]) -> None:
    options = replace(Options(style=STYLES["rows"], with_depth=True), **off)  # type: ignore[arg-type]
    assert_same(*both(make_config(**changes), options, 2, seed=2))


@pytest.mark.parametrize("changes", [{"routing": "none"}, {"routing": "none", "sharing": "none"}], ids=named)
def test_depth_without_routing_is_the_references(changes: dict[str, Any]) -> None:
    outcome, answer = both(make_config(**changes), Options(with_depth=True), 1)
    assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("changes", EXPERT, ids=named)
def test_a_lone_image_may_run_in_a_graph_for_batches(changes: dict[str, Any]) -> None:
    assert_same(*both(make_config(**changes), Options(style=STYLES["rows"]), 1, seed=3))


schedules = st.lists(st.integers(1, 16), min_size=1, max_size=5).map(lambda k: sorted(k, reverse=True))
edges = st.lists(st.sampled_from([1, 2, 15, 16]), min_size=2, max_size=5).map(
    lambda k: sorted(k, reverse=True)
)
shapes = st.fixed_dictionaries(
    {
        "sharing": st.sampled_from(["cycle", "middle_cycle"]),
        "gate": st.sampled_from(["block", "delta", "hard"]),
        "attention_scope": st.sampled_from(["active", "all"]),
        "cycle_depth": st.integers(1, 2),
        "router": st.fixed_dictionaries(
            {"shared": st.booleans(), "activation": st.sampled_from(["sigmoid", "tanh"])}
        ),
    }
)


@given(capacity=schedules | edges, changes=shapes, batch=st.integers(1, 2), seed=st.integers(0, 999))
def test_random_schedules(capacity: list[int], changes: dict[str, Any], batch: int, seed: int) -> None:
    config = make_config(**changes, capacity=capacity, num_recursions=len(capacity))
    outcome, answer = both(config, Options(style=style_for_batch(batch), with_depth=True), batch, seed)
    assert_same(outcome, answer)
    assert answer["depth"].tolist() == outcome.depth.tolist()


@given(capacity=schedules, seed=st.integers(0, 999))
def test_another_bucket_is_the_model_under_that_schedule(capacity: list[int], seed: int) -> None:
    steps = len(capacity)
    own = make_config(num_recursions=steps, capacity=[16] * steps)
    other = make_config(num_recursions=steps, capacity=capacity)
    judge = random_model(other, seed, torch.float64)
    pixels = random_pixels(own, 2, seed)
    graph = unroll(random_model(own, seed, torch.float64), own_bucket(other), Options(style=STYLES["rows"]))
    assert_same(judge(normalised(own, pixels)), graph(torch.from_numpy(pixels)))


@given(
    capacity=st.lists(st.integers(1, 17), min_size=1, max_size=5),
    depth=st.integers(1, 2),
    router=st.fixed_dictionaries({"shared": st.booleans(), "hidden": st.sampled_from([[], [6]])}),
    batch=st.integers(1, 2),
    seed=st.integers(0, 999),
)
def test_random_flat_schedules(
    capacity: list[int], depth: int, router: dict[str, Any], batch: int, seed: int
) -> None:
    config = make_config(
        routing="expert_choice_flat", capacity=capacity, num_recursions=len(capacity), cycle_depth=depth,
        router=router,
    )  # fmt: skip
    outcome, answer = both(config, Options(style=style_for_batch(batch), with_depth=True), batch, seed)
    assert_same(outcome, answer)
    assert answer["depth"].tolist() == outcome.depth.tolist()


@pytest.mark.parametrize("batch", [1, 3])
def test_cls_and_patches_that_come_back(batch: int) -> None:
    model = wandering_model(torch.float64)
    pixels = random_pixels(model.config, batch)
    outcome = model(normalised(model.config, pixels))
    assert (
        outcome.runs[:, :, 0].all(dim=1).tolist() == outcome.runs[:, :, 0].any(dim=1).tolist() == [*CLS_RUNS]
    )
    graph = unroll(model, own_bucket(model.config), Options(style=style_for_batch(batch), with_depth=True))
    answer = graph(torch.from_numpy(pixels))
    assert_same(outcome, answer)
    assert answer["depth"].tolist() == outcome.depth.tolist()


def test_probes_of_all_tokens() -> None:
    config = make_config(routing="expert_choice_flat", capacity=[9, 17, 4])
    outcome, answer = both(config, Options(style=STYLES["rows"]), 1)
    for step, decision in enumerate(outcome.traces[0].decisions, start=1):
        assert answer[f"step{step}.state"].shape == (1, 17, config.embed_dim)
        assert (f"step{step}.order" in answer) == (f"step{step}.router_logits" in answer) == (step != 2)
        if step != 2:
            z = answer[f"step{step}.router_logits"]
            assert z.shape == (1, 17, 1)
            assert torch.allclose(
                z[0, :, 0].sort().values, decision.router_logits.sort().values, rtol=0, atol=EXACT
            )


@pytest.mark.parametrize("scope", ["active", "all"])
def test_probes_name_every_step(scope: str) -> None:
    config = make_config(attention_scope=scope)
    outcome, answer = both(config, Options(style=STYLES["rows"]), 1)
    for step, decision in enumerate(outcome.traces[0].decisions, start=1):
        z = answer[f"step{step}.router_logits"]
        assert z.shape == (1, len(decision.candidates) + 1, 1)
        assert torch.allclose(
            z[0, 1:, 0].sort().values, decision.router_logits.sort().values, rtol=0, atol=EXACT
        )
        assert answer[f"step{step}.state"].shape == (1, len(decision.kept) + 1, config.embed_dim)


def test_weights_are_the_models_own_count() -> None:
    """Unrolling ten steps does not copy a block ten times."""
    config = make_config(num_recursions=10, capacity=[16, 8, 4, 2, 1, 1, 1, 1, 1, 1])
    model = random_model(config)
    held = sum(
        p.numel() for name, p in unroll(model, own_bucket(config)).named_parameters() if "norm" not in name
    )
    trained = sum(p.numel() for name, p in model.named_parameters() if "norm" not in name)
    # the patch bias into the positions, CLS with its position; the last block's keys have no bias
    folded = 3 * config.embed_dim
    assert held == trained - folded


def test_the_trained_model_is_left_as_it_was() -> None:
    config = make_config()
    model: MoRViT = random_model(config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    unroll(model, own_bucket(config), Options(fold=True))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_pixels_at_the_ends_of_the_range() -> None:
    config = make_config()
    model = random_model(config, dtype=torch.float64)
    pixels = np.stack([np.zeros((32, 32, 3)), np.full((32, 32, 3), 255)]).astype(np.uint8)
    answer = unroll(model, own_bucket(config), Options(style=STYLES["rows"]))(torch.from_numpy(pixels))
    assert_same(model(normalised(config, pixels)), answer)
