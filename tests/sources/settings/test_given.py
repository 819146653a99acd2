"""What no file says is asked for; what is said in vain or against the file is refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from morvit_deploy.errors import ConfigError
from morvit_deploy.sources.settings.given import Given, Questions, Settings, Settled

SOURCE = Path("model.pth")


def test_keywords_are_the_fields_of_given() -> None:
    assert Settings.__annotations__.keys() == {field.name for field in fields(Given)}


def closing(questions: Questions) -> str:
    with pytest.raises(ConfigError) as caught:
        questions.close(SOURCE, "a ViT")
    return str(caught.value)


def test_the_files_word_and_the_users() -> None:
    questions = Questions(Given(norm_eps=1e-5, num_heads=4))
    assert questions.settle("norm_eps", published="1e-6") == 1e-5
    assert questions.settle("num_heads", stored=4, published="3") == 4, "said and stored alike"
    assert (
        questions.settle("activation", stored="gelu", origin="config.json, hidden_act", published="gelu")
        == "gelu"
    )
    assert questions.settled == {
        "norm_eps": Settled(1e-5, "command line, --norm-eps"),
        "num_heads": Settled(4, "config.json"),
        "activation": Settled("gelu", "config.json, hidden_act"),
    }
    questions.close(SOURCE, "a ViT")


def test_everything_that_is_missing_is_asked_at_once_with_published_values() -> None:
    questions = Questions(Given())
    assert questions.settle("norm_eps", published="1e-6") is None
    assert questions.settle("num_heads", published="3 at width 192", example="3") is None
    questions.require("preprocess", "imagenet, for DeiT", "imagenet")
    message = closing(questions)
    assert "model.pth is a ViT" in message
    assert "--norm-eps    published: 1e-6" in message and "--num-heads   published: 3 at width 192" in message
    assert message.endswith("with the published values: --norm-eps 1e-6 --num-heads 3 --preprocess imagenet")


def test_a_contradiction_is_no_choice() -> None:
    questions = Questions(Given(norm_eps=1e-6))
    questions.settle("norm_eps", stored=1e-12, published="1e-12")
    assert "--norm-eps: got 1e-06, expected 1e-12 as in config.json; omit the option" in closing(questions)


@pytest.mark.parametrize(
    "said",
    {
        "gate": "hard",
        "dora_alpha": 4.0,
        "cycle_depth": 2,
        "alpha": 0.0,
        "capacity": (3,),
        "preprocess": "x",
    }.items(),
    ids=lambda said: said[0],
)
def test_what_is_said_in_vain(said: tuple[str, Any]) -> None:
    message = closing(Questions(Given(**dict([said]))))
    assert f"--{said[0].replace('_', '-')}: has no effect on this checkpoint" in message


def test_contradictions_come_before_questions() -> None:
    questions = Questions(Given(gate="hard"))
    questions.settle("norm_eps", published="1e-6")
    assert "--norm-eps" not in closing(questions)


@pytest.mark.parametrize(
    ("said", "match"),
    [
        ({"activation": "silu"}, "--activation: got 'silu', expected one of gelu, gelu_tanh, relu"),
        ({"gate": "soft"}, "--gate: got 'soft', expected one of block, delta, hard"),
        ({"selection": "top"}, "--selection: got 'top', expected one of flat, nested"),
        ({"sharing": "all"}, "--sharing: got 'all', expected one of none, cycle, middle_cycle"),
        ({"norm_eps": 0.0}, "--norm-eps: got 0.0, expected a number above 0"),
        ({"norm_eps": float("nan")}, "--norm-eps: got nan"),
        ({"num_heads": -2}, "--num-heads: got -2"),
        ({"dora_alpha": float("inf")}, "--dora-alpha: got inf"),
        ({"image_size": 0}, "--image-size: got 0"),
        ({"cycle_depth": 0}, "--cycle-depth: got 0"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_values_that_no_model_can_have(said: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Given(**said)


def test_a_list_of_capacities_is_the_numbers_in_it() -> None:
    questions = Questions(Given(capacity=[17, 11]))  # type: ignore[arg-type]  # as a user of Python writes it
    assert questions.settle("capacity", stored=(17, 11), published="") == (17, 11)
    questions.close(SOURCE, "a ViT")


def test_values_are_what_was_given() -> None:
    assert Given(family="timm_vit", ema=False, alpha=0.0, num_heads=3).values() == {
        "alpha": 0.0,
        "num_heads": 3,
    }


def test_which_weights_is_no_setting_of_the_model() -> None:
    assert Given(entry="ema", prefix="student.").values() == {}
    with pytest.raises(ConfigError, match="--entry ema names the weights, so leave out --no-ema"):
        Given(entry="ema", ema=False)
    with pytest.raises(ConfigError, match="--prefix: got an empty name"):
        Given(prefix="")
