"""Routes of four patch tokens, worked out by hand from the probes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_models import make_config

from morvit_deploy.model.trace import Decision, Outcome, Trace
from morvit_deploy.verifying.routes import Routes, margins_of

DIM = 16
EXPERT = make_config(image_size=16, capacity=[3, 2, 1])  # 4 patches of 8 × 8
FLAT = make_config(image_size=16, routing="expert_choice_flat", capacity=[3, 2, 1])
DEPTHS = make_config(image_size=16, routing="token_choice", num_recursions=1)  # first, cycle.0, last
DENSE = make_config(image_size=16, routing="none")
LOGITS = np.zeros((1, 10))


def column(*values: float) -> NDArray[np.float64]:
    """Router logits (1, tokens, 1) of one image."""
    return np.array(values, dtype=np.float64)[None, :, None]


def row(*values: Any) -> NDArray[Any]:
    return np.array(values)[None]


def state(*values: float) -> NDArray[np.float64]:
    """A state (1, tokens, dim), each token with one value."""
    return np.repeat(column(*values), DIM, axis=2)


# Step 1: patches 0, 2 and 3 reach 0.5; the bucket holds 2 and 0. Step 2: patch 0 does. Step 3: none.
THRESHOLDS = Routes(EXPERT, (2, 1, 1), (0.5, 0.5, 0.5))
PROBES = {
    "logits": LOGITS, "embed": state(0, 0, 0, 0, 0),
    "step1.router_logits": column(9, 0.7, 0.2, 0.9, 0.5), "step1.order": row(2, 0, 3, 1),
    "step2.router_logits": column(9, 0.1, 0.8), "step2.order": row(1, 0),
    "step3.router_logits": column(9, 0.4), "step3.order": row(0),
    "step1.state": state(1, 12, 10), "step2.state": state(2, 20), "step3.state": state(3, 30),
}  # fmt: skip  # a step a line


def lists(found: Any) -> Any:
    assert found is not None
    return [one.tolist() for one in found] if isinstance(found, list) else found.tolist()


def test_thresholds_within_capacities() -> None:
    assert lists(THRESHOLDS.held(PROBES)) == [[[2, 0]], [[0]], [[0]]]
    assert lists(THRESHOLDS.runs(PROBES)) == [
        [[True, False, True, False]], [[True, False, False, False]], [[False] * 4],
    ]  # fmt: skip  # a step each
    assert lists(THRESHOLDS.wanted(PROBES)) == [[3, 1, 0]]
    assert lists(THRESHOLDS.depths(PROBES)) == [[2, 0, 1, 0]]


def test_the_graphs_own_account_of_who_runs_counts() -> None:
    probes = PROBES | {"step1.runs": row(True, False)}  # patch 0 is padding
    assert lists(THRESHOLDS.runs(probes))[:2] == [[[False, False, True, False]], [[False] * 4]]
    assert lists(THRESHOLDS.wanted(probes)) == [[3, 0, 0]]


def test_a_step_without_a_threshold_keeps_all() -> None:
    routes = Routes(EXPERT, (2, 2, 1), (0.5, None, 0.75))
    probes = {name: value for name, value in PROBES.items() if name != "step2.order"}
    probes |= {"step3.router_logits": column(9, 0.4, 0.8), "step3.order": row(1, 0)}
    assert lists(routes.held(probes)) == [[[2, 0]], [[2, 0]], [[0]]]
    assert lists(routes.wanted(probes)) == [[3, 2, 1]]
    assert lists(routes.depths(probes)) == [[3, 0, 2, 0]]


def test_a_single_step() -> None:
    routes = Routes(make_config(image_size=16, num_recursions=1, capacity=[2]), (2,), (0.5,))
    probes = {name: value for name, value in PROBES.items() if name.startswith(("logits", "step1"))}
    assert lists(routes.wanted(probes)) == [[3]] and lists(routes.depths(probes)) == [[1, 0, 1, 0]]


def test_top_k_runs_what_it_holds_and_wants_nothing() -> None:
    routes = Routes(EXPERT, (2, 1, 1))
    assert lists(routes.runs(PROBES))[1:] == [[[True, False, False, False]]] * 2
    assert routes.wanted(PROBES) is None
    assert lists(routes.depths(PROBES)) == [[3, 0, 1, 0]]


def test_without_probes_nothing_is_known() -> None:
    assert THRESHOLDS.held({"logits": LOGITS}) is None and THRESHOLDS.runs({"logits": LOGITS}) is None
    assert THRESHOLDS.wanted({"logits": LOGITS}) is None and THRESHOLDS.depths({"logits": LOGITS}) is None
    assert THRESHOLDS.tokens_alike(REFERENCE, {"logits": LOGITS}) is None
    assert THRESHOLDS.decisions_alike(REFERENCE, {"logits": LOGITS}, np.array([True])) is None
    assert [*THRESHOLDS.stages_of({"logits": LOGITS})] == ["logits"]


def test_depths_chosen_up_front() -> None:
    """Depths 2, 1, 3 and 1 of three layers; in the order of depth the tokens are 2, 0, 1, 3."""
    z = np.array([[9, 0, 0], [0, 2, 1], [3, 0, 1], [0, 1, 4], [2, 0, 0]], dtype=float)[None]
    probes = {"logits": LOGITS, "depth.router_logits": z, "depth.order": row(2, 0, 1, 3)}
    routes = Routes(DEPTHS, (4, 2, 1))
    assert lists(routes.depths(probes)) == [[2, 1, 3, 1]]
    assert lists(routes.held(probes)) == [[[2, 0, 1, 3]], [[2, 0]], [[2]]]
    assert lists(routes.wanted(probes)) == [[4, 2, 1]]
    assert lists(Routes(DEPTHS, (4, 1, 1)).wanted(probes)) == [[4, 2, 1]], "whatever the bucket holds"
    assert lists(routes.runs(probes)) == [
        [[True] * 4], [[True, False, True, False]], [[False, False, True, False]],
    ]  # fmt: skip  # a layer each
    assert lists(Routes(DEPTHS, (4, 4, 4)).runs({k: probes[k] for k in probes if "order" not in k})) == [
        [[True] * 4], [[True, False, True, False]], [[False, False, True, False]],
    ]  # fmt: skip  # a layer each
    unknown = {"logits": LOGITS}
    assert routes.depths(unknown) is None and routes.runs(unknown) is None and routes.wanted(unknown) is None


def test_tokens_that_may_return() -> None:
    """CLS is token 0. It runs step 1, patch 3 runs all steps."""
    probes = {
        "logits": LOGITS, "step1.state": state(0, 0, 0, 0, 0), "step1.order": row(4, 0, 2, 1, 3),
        "step2.order": row(0, 3, 1, 2, 4), "step3.order": row(0, 1, 2, 3, 4),
    }  # fmt: skip  # two a line
    routes = Routes(FLAT, (3, 2, 1))
    assert lists(routes.held(probes)) == [[[4, 0, 2, 1, 3]], [[4, 1, 0, 2, 3]], [[4, 1, 0, 2, 3]]]
    assert lists(routes.runs(probes)) == [
        [[True, False, True, False, True]], [[False, True, False, False, True]], [[False] * 4 + [True]],
    ]  # fmt: skip  # a step each
    assert lists(routes.depths(probes)) == [[1, 1, 0, 3]] and routes.wanted(probes) is None


def test_without_routers_every_token_runs() -> None:
    routes = Routes(DENSE, (4, 4, 4))
    assert lists(routes.runs({"logits": LOGITS})) == [[[True] * 4]] * 3
    assert routes.wanted({"logits": LOGITS}) is None and routes.depths({"logits": LOGITS}) is None
    assert routes.tokens_alike(REFERENCE, {"logits": LOGITS}) is None
    assert routes.decisions_alike(REFERENCE, {"logits": LOGITS}, np.array([True])) is None


def decision(candidates: list[int], kept: list[int], z: list[float]) -> Decision:
    tokens, going = (torch.tensor(numbers, dtype=torch.long) for numbers in (candidates, kept))
    return Decision(tokens, going, torch.tensor(z), 1.0, len(kept))


STATES = {
    name: torch.full((5, DIM), value) for value, name in enumerate(("embed", "step1", "step2", "step3"))
}
# the reference keeps patch 3 in place of 0 at step 1, and no token at step 2
REFERENCE = Outcome(
    torch.zeros(1, 10),
    torch.tensor([[0, 0, 1, 1]]),
    [Trace(
        [decision([0, 1, 2, 3], [2, 3], [0.25, 0.125, 0.875, 0.625]), decision([2, 3], [], [0.25, 0.375]),
         decision([], [], [])],
        STATES,
    )],
)  # fmt: skip  # a step each


def test_decisions_are_counted_for_the_references_candidates() -> None:
    flips: list[list[float]] = [[], [], []]
    counts = THRESHOLDS.decisions_alike(REFERENCE, PROBES, np.array([True]), flips)
    assert lists(counts) == [[2, 4], [2, 2], [0, 0]]
    assert flips == [[0.25, 0.125], [], []], "of patches 0 and 3: distances to 0.5"
    assert lists(THRESHOLDS.decisions_alike(REFERENCE, PROBES, np.array([False]), flips)) == [[0, 0]] * 3
    assert lists(THRESHOLDS.decisions_alike(REFERENCE, PROBES, np.array([True]))) == [[2, 4], [2, 2], [0, 0]]
    counted = THRESHOLDS.tokens_alike(REFERENCE, PROBES)
    assert lists(counted) == [[2, 4], [3, 4], [4, 4]]
    assert counted is not None and np.issubdtype(counted.dtype, np.integer)


def test_the_margin_of_a_decision() -> None:
    z = np.array([4.0, 1.0, 2.0, 0.0])
    kept = np.array([True, False, False, False])
    assert margins_of(z, kept, None).tolist() == [1.0, 2.0, 1.0, 3.0], "the middle between 4 and 2 is 3"
    assert margins_of(z, kept, 1.5).tolist() == [2.5, 0.5, 0.5, 1.5]
    assert margins_of(z, np.ones(4, bool), None).tolist() == [math.inf] * 4
    assert margins_of(z, np.zeros(4, bool), None).tolist() == [math.inf] * 4
    assert margins_of(np.array([[1.0, 3.0, 2.5], [5.0, 1.0, 3.0]]), kept[:2], None).tolist() == [0.5, 2.0]


def test_states_are_at_their_tokens_rows_and_zero_where_a_token_does_not_run() -> None:
    stages = THRESHOLDS.stages_of(PROBES | {"layer2.state": state(7)})
    steps = [f"step{step}.{what}" for step in (1, 2, 3) for what in ("runs", "state")]
    assert [*stages] == ["embed", *steps, "layer2.state", "logits"], "in order of computation"
    assert stages["step1.state"][0, :, 0].tolist() == [1, 10, 0, 12, 0], "CLS, and patches 0 and 2"
    assert stages["step2.state"][0, :, 0].tolist() == [2, 20, 0, 0, 0]
    assert stages["step3.state"][0, :, 0].tolist() == [3, 0, 0, 0, 0]
    assert stages["step1.runs"].tolist() == [[1, 0, 1, 0]]
    only_cls = THRESHOLDS.stages_of(PROBES | {"step3.state": state(3)})
    assert only_cls["step3.state"].shape == (1, 1, DIM)


def test_the_references_states_are_at_the_same_rows() -> None:
    stages = THRESHOLDS.stages_of_reference(REFERENCE)
    steps = [f"step{step}.{what}" for step in (1, 2, 3) for what in ("runs", "state")]
    assert [*stages] == ["embed", *steps, "logits"]
    assert stages["step1.state"][0, :, 0].tolist() == [1, 0, 0, 1, 1]
    assert stages["step2.state"][0, :, 0].tolist() == [2, 0, 0, 0, 0]
    dense = Routes(DENSE, (4, 4, 4)).stages_of_reference(REFERENCE)
    assert [*dense] == ["embed", "step1.state", "step2.state", "step3.state", "logits"]
    assert dense["step1.state"][0, :, 0].tolist() == [1] * 5


@pytest.mark.parametrize(
    ("change", "told"), [(0.0019, None), (0.0021, "b (max |Δ| 0.0021, image 6)"), (math.nan, "b (")]
)
def test_the_first_stage_beyond_the_tolerance(change: float, told: str | None) -> None:
    """Two thousandths are allowed where a value is 2, in the rows that both have."""
    a, b = np.zeros((3, 2, 1)), np.full((3, 2, 1), -2.0)
    b[:, 1] = 1.0  # a row that only one has is not compared
    wanted = {"a": a, "b": b, "only here": b, "c": b}
    found = {"a": np.concatenate([a, a + 1], axis=1), "b": b[:, :1].copy(), "c": b + 1}
    clear = np.array([False, True, True])
    found["b"][2, 0] += change
    found["b"][0, 0] += 1  # an image that is not compared
    if told is None:
        assert THRESHOLDS.first_divergence(wanted, found | {"c": b}, clear, 4) is None
        told = "c (max |Δ| 1, image 5)"
    divergence = THRESHOLDS.first_divergence(wanted, found, clear, 4)
    assert divergence is not None and divergence.startswith(told)


def test_small_values_may_differ_by_a_thousandth() -> None:
    wanted, everyone = {"a": np.full((1, 1), 0.1)}, np.array([True])
    assert THRESHOLDS.first_divergence(wanted, {"a": np.full((1, 1), 0.1009)}, everyone, 0) is None
    assert THRESHOLDS.first_divergence(wanted, {"a": np.full((1, 1), 0.1011)}, everyone, 0) is not None
