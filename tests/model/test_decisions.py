"""Routing as pure functions: scores, who goes on, and how close the decision was."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morvit_deploy.model import decisions
from morvit_deploy.model.trace import Decision, Trace

logits = st.lists(st.integers(-4, 4), min_size=1, max_size=20)  # small integers: many ties


@given(z=logits, data=st.data())
def test_top_k_is_the_highest_with_ties_to_the_lower_position(z: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(z)))
    expected = sorted(sorted(range(len(z)), key=lambda i: (-z[i], i))[:k])
    assert decisions.top_k(torch.tensor(z, dtype=torch.float64), k).tolist() == expected


@given(rows=st.lists(st.lists(st.integers(-2, 2), min_size=3, max_size=3), min_size=1, max_size=6))
def test_first_argmax_is_the_lowest_index(rows: list[list[int]]) -> None:
    assert decisions.first_argmax(torch.tensor(rows).double()).tolist() == [
        row.index(max(row)) for row in rows
    ]


@given(z=st.lists(st.floats(-5, 5), min_size=2, max_size=12), data=st.data())
def test_nothing_below_half_the_margin_changes_the_decision(z: list[float], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(z) - 1))
    tensor = torch.tensor(z, dtype=torch.float64)
    margin = decisions.top_k_margin(tensor, k)
    assert margin >= 0
    if margin > 1e-6:
        shift = data.draw(st.lists(st.floats(-0.49, 0.49), min_size=len(z), max_size=len(z)))
        moved = tensor + margin * torch.tensor(shift, dtype=torch.float64)
        assert torch.equal(decisions.top_k(moved, k), decisions.top_k(tensor, k))


@pytest.mark.parametrize(("wanted", "overflow"), [(2, False), (3, False), (4, True)])
def test_overflow_is_a_token_that_its_capacity_excludes(wanted: int, overflow: bool) -> None:
    everyone = torch.arange(5)
    fits = Decision(everyone, everyone, torch.zeros(5), 0.0, 5)
    assert (
        Trace(decisions=[fits, Decision(everyone, everyone[:3], torch.zeros(5), 0.0, wanted)]).overflow
        == overflow
    )


@pytest.mark.parametrize("k", [0, 3])
def test_without_a_choice_the_margin_is_infinite(k: int) -> None:
    assert decisions.top_k_margin(torch.zeros(3), k) == math.inf
    assert decisions.argmax_margin(torch.zeros(4, 1)) == math.inf
    assert decisions.argmax_margin(torch.zeros(0, 5)) == math.inf


def test_margins_by_hand() -> None:
    assert decisions.top_k_margin(torch.tensor([3.0, 1.0, 2.5, -1.0]), 2) == 1.5
    assert decisions.top_k_margin(torch.tensor([3.0, 1.0, 2.5, -1.0]), 1) == 0.5
    assert decisions.top_k_margin(torch.tensor([3.0, 1.0, 2.5, -1.0]), 3) == 2.0
    assert decisions.argmax_margin(torch.tensor([[1.0, 5.0, 3.0], [0.0, 0.5, 0.25]])) == 0.25


@pytest.mark.parametrize(("activation", "at_zero"), [("sigmoid", 0.5), ("tanh", 0.0)])
@pytest.mark.parametrize("alpha", [1.0, 0.3, -2.0])
def test_scores(activation: str, at_zero: float, alpha: float) -> None:
    z = torch.tensor([0.0, 40.0, 1.0], dtype=torch.float64)
    g = decisions.score(z, activation, alpha)
    by_hand = math.tanh(1) if activation == "tanh" else 1 / (1 + math.exp(-1))
    assert g.tolist() == pytest.approx([alpha * at_zero, alpha, alpha * by_hand])


def test_a_token_at_the_threshold_goes_on() -> None:
    z = torch.tensor([0.5, 0.25, 0.125, -1.0], dtype=torch.float64)
    assert decisions.at_least(z, 0.25).tolist() == [0, 1]
    assert decisions.at_least(z, 0.25 + 1e-12).tolist() == [0]


def test_the_margin_of_a_threshold_is_that_of_the_nearest_token() -> None:
    z = torch.tensor([3.0, -2.0, 0.75], dtype=torch.float64)
    assert decisions.threshold_margin(z, 0.5) == 0.25
    assert decisions.threshold_margin(z, -1.5) == 0.5
    assert decisions.threshold_margin(z[:0], 0.5) == math.inf


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
@pytest.mark.parametrize("alpha", [0.1, 1.0, -0.7])
def test_scores_are_numpys(activation: str, alpha: float) -> None:
    import numpy as np

    z = np.linspace(-9, 9, 41)
    act = np.tanh(z) if activation == "tanh" else 1 / (1 + np.exp(-z))
    found = decisions.score(torch.from_numpy(z), activation, alpha).numpy()
    np.testing.assert_allclose(found, alpha * act, rtol=1e-13, atol=1e-15)


def test_clearance_is_the_margin_in_units_of_the_logits_spread() -> None:
    from morvit_deploy.model.trace import Decision, Trace

    def decision(z: list[float], margin: float) -> Decision:
        tokens = torch.arange(len(z))
        return Decision(tokens, tokens[:1], torch.tensor(z), margin, 1)

    wide = decision([1.0, -1.0], 0.5)  # standard deviation 1
    assert wide.clearance == pytest.approx(0.5)
    assert decision([1e-5, -1e-5], 0.5e-5).clearance == pytest.approx(0.5)
    assert decision([5.0 + 1e-7, 5.0], 1e-7).clearance == pytest.approx(2e-6, rel=1e-2), "that of 5.0 counts"
    assert decision([0.0, 0.0], 0.0).clearance == 0.0
    assert decision([0.0, 0.0], math.inf).clearance == math.inf
    assert math.isnan(decision([math.nan, 1.0], 0.5).clearance)
    assert Trace([wide, decision([1.0, -1.0], 0.25)]).clearance == pytest.approx(0.25)
