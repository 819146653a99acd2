"""Probabilities and decisions of logits; one logit is judged by its sign."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from tiny_models import make_config, make_fields

from morvit_deploy.agent.parity import gaps
from morvit_deploy.calibration.ranges.sensitivity import score
from morvit_deploy.errors import ConfigError
from morvit_deploy.measuring.core.parity import LogitParity
from morvit_deploy.model.answers.heads import decided, decision_margins, probabilities, same_decisions
from morvit_deploy.model.config import parse_config
from morvit_deploy.verifying.gaps import LogitPairs, flipped_margins, gap_of

LOGITS = np.array([[2.0, -1.0, 0.5], [-3.0, -0.1, -2.0]])


def test_probabilities() -> None:
    for name in ("softmax", "sigmoid"):
        expected = getattr(torch, name)(torch.from_numpy(LOGITS), *([-1] if name == "softmax" else []))
        assert np.allclose(probabilities(LOGITS, name), expected.numpy(), rtol=1e-12, atol=0)
    assert probabilities(np.array([1000.0, -1000.0, 0.0]), "sigmoid").tolist() == [1.0, 0.0, 0.5]
    assert probabilities(np.array([-5.0])).tolist() == [1.0], "softmax of one logit says nothing"


def test_decisions() -> None:
    assert decided(LOGITS).tolist() == [[0], [1]]
    assert decided(LOGITS, "sigmoid").tolist() == [[1, 0, 1], [0, 0, 0]]
    assert decided(np.array([[1.5], [-0.5]])).tolist() == [[1], [0]], (
        "one logit has a sign, whatever the head"
    )
    assert decision_margins(LOGITS).tolist() == [1.5, 1.9]
    assert decision_margins(LOGITS, "sigmoid").tolist() == [0.5, 0.1]
    assert decision_margins(np.array([[1.5], [-0.5]])).tolist() == [1.5, 0.5]


def test_the_same_best_class_is_not_the_same_decision() -> None:
    other = LOGITS + np.array([[0, 2, 0], [0, 0, 0]])  # a second class is above 0, and the best is the same
    assert same_decisions(LOGITS, other).tolist() == [True, True]
    assert same_decisions(LOGITS, other, "sigmoid").tolist() == [False, True]
    assert gap_of(LOGITS, other, 1.0).top1_agreement == 1.0
    assert gap_of(LOGITS, other, 1.0, "sigmoid").top1_agreement == 0.5
    pairs = LogitPairs("sigmoid")
    pairs.add(LOGITS, other)
    assert pairs.gap(1.0).top1_agreement == 0.5
    assert flipped_margins(LOGITS, other, "sigmoid") == [0.5] and flipped_margins(LOGITS, other) == []


def test_agreement_of_one_logit_can_fail() -> None:
    a, b = np.array([[0.5], [-0.5], [2.0]]), np.array([[-0.5], [-0.5], [2.0]])
    assert gap_of(a, b, 1.0).top1_agreement == pytest.approx(2 / 3)
    assert flipped_margins(a, b) == [0.5]
    assert score(a, b, None).drop == pytest.approx(100 / 3)
    assert score(a, b, [0, 0, 0]).drop == pytest.approx(100 / 3), "labels say nothing of a single class"
    assert gaps(b.astype(np.float32), a)["same_class"] == 2


def test_a_device_is_judged_by_the_decisions_of_the_head() -> None:
    returned = LOGITS + np.array([[0, 2, 0], [0, 2, 0]])
    found = gaps(returned, LOGITS)
    assert (found["same_class"], found["same_signs"]) == (2, 0)
    assert LogitParity.of("b", "here", "fp16", found).agrees
    assert not LogitParity.of("b", "here", "fp16", found, "sigmoid").agrees


def test_the_config_has_it() -> None:
    assert make_config().head_activation == "softmax"
    assert "head_activation" not in json.loads(make_config().to_json()), "the same bytes as older versions"
    config = make_config(head_activation="sigmoid")
    assert json.loads(config.to_json())["head_activation"] == "sigmoid"
    assert parse_config(config.to_json()) == config
    with pytest.raises(ConfigError, match="head_activation"):
        parse_config(json.dumps(make_fields(head_activation="tanh")))
