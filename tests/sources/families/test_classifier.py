"""What the head reads and what its logits mean: read from the files, or asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_checkpoints import DIM, contents, said, vit

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.families.classifier import settle_head_activation
from morvit_deploy.sources.families.settling import settle_heads
from morvit_deploy.sources.families.timm_vit import TimmViT
from morvit_deploy.sources.settings.given import Given, Questions, Settled

SOURCE = Path("model.pth")


def closed(questions: Questions) -> str:
    with pytest.raises(ConfigError) as caught:
        questions.close(SOURCE, "a ViT")
    return str(caught.value)


# ---- pooling: average-pooled ViTs have the tensors of a ViT that reads CLS


def test_pooling_is_asked_for() -> None:
    questions = Questions(said(pooling=None))
    TimmViT().draft(contents(vit()), questions)
    message = closed(questions)
    assert "--pooling     published: cls, in timm's ViT and DeiT" in message
    assert message.endswith("with the published values: --pooling cls")


@pytest.mark.parametrize("config", [{}, {"global_pool": None}, {"pretrained_cfg": {"mean": [0.5] * 3}}])
def test_a_config_that_does_not_say_it(config: dict[str, Any]) -> None:
    questions = Questions(said(pooling=None))
    TimmViT().draft(contents(vit(), config=config), questions)
    assert "--pooling" in closed(questions)


def test_a_config_that_says_it() -> None:
    questions = Questions(said(pooling=None))
    TimmViT().draft(contents(vit(), config={"global_pool": "token"}), questions)
    assert questions.settled["pooling"] == Settled("cls", "config.json, global_pool")


def fc_norm_vit() -> dict[str, Any]:
    """timm's names of a model whose norm follows the mean."""
    return {
        name.replace("norm.", "fc_norm.") if name.startswith("norm.") else name: t
        for name, t in vit().items()
    }


@pytest.mark.parametrize("pooling", ["mean", "mean_norm"])
def test_the_mean_as_given(pooling: str) -> None:
    draft = TimmViT().draft(contents(vit()), Questions(said(pooling=pooling)))
    assert draft.fields["pooling"] == pooling


def test_a_norm_after_the_mean_is_that_of_fc_norm() -> None:
    questions = Questions(said(pooling=None))
    draft = TimmViT().draft(contents(fc_norm_vit(), config={"global_pool": "avg"}), questions)
    assert draft.fields["pooling"] == "mean_norm" and "norm.weight" in draft.tensors
    assert questions.settled["pooling"] == Settled("mean_norm", "config.json, global_pool, and fc_norm")
    asked = Questions(said(pooling=None))
    TimmViT().draft(contents(fc_norm_vit()), asked)
    assert closed(asked).endswith("with the published values: --pooling mean_norm")


def test_fc_norm_contradicts_a_mean_after_the_norm() -> None:
    with pytest.raises(ConfigError, match="--pooling: got mean, expected mean_norm: the file has fc_norm"):
        TimmViT().draft(contents(fc_norm_vit()), Questions(said(pooling="mean")))


def test_a_file_without_a_head_returns_features_if_asked() -> None:
    tensors = {name: t for name, t in vit().items() if not name.startswith("head.")}
    with pytest.raises(CheckpointError, match=r"saved without its head.*--head-activation none"):
        TimmViT().draft(contents(tensors), Questions(said()))
    draft = TimmViT().draft(contents(tensors), Questions(said(head_activation="none")))
    assert torch.equal(draft.tensors["head.weight"], torch.eye(DIM)) and not draft.tensors["head.bias"].any()
    assert "the head is the identity" in draft.remarks[0]


def test_pooling_against_the_file() -> None:
    questions = Questions(said(pooling="mean"))
    TimmViT().draft(contents(vit(), config={"global_pool": "token"}), questions)
    assert "--pooling: got mean, expected cls as in config.json, global_pool" in closed(questions)


# ---- the activation of the head


def activation(classes: int, problem: object = None, **given: Any) -> tuple[Any, Questions]:
    questions = Questions(Given(**given))
    return settle_head_activation(questions, classes, problem), questions


PROBLEMS: dict[str, tuple[int, object, str | None, str]] = {
    "multi-label": (3, "multi_label_classification", None, "sigmoid"),
    "multi-label, one class": (1, "multi_label_classification", None, "sigmoid"),
    "single-label": (3, "single_label_classification", None, "softmax"),
    "regression": (3, "regression", None, "none"),
    "regression, one number": (1, "regression", None, "none"),
    "regression as given": (1, None, "none", "none"),
    "nothing said": (3, None, None, "softmax"),
    "given": (3, None, "sigmoid", "sigmoid"),
    "binary": (1, None, "sigmoid", "sigmoid"),
    "binary against single-label": (1, "single_label_classification", "sigmoid", "sigmoid"),
}


@pytest.mark.parametrize(("classes", "problem", "given", "expected"), PROBLEMS.values(), ids=PROBLEMS)
def test_activations(classes: int, problem: object, given: str | None, expected: str) -> None:
    found, questions = activation(classes, problem, head_activation=given)
    assert found == expected and questions.settled["head_activation"].value == expected
    questions.close(SOURCE, "a ViT")


def test_one_logit_is_asked_for() -> None:
    found, questions = activation(1)
    message = closed(questions)
    assert found is None and "--head-activation" in message and "regression" in message
    with pytest.raises(ConfigError, match="got softmax for one logit, whose probability would always be 1"):
        activation(1, head_activation="softmax")


@pytest.mark.parametrize("problem", ["object_detection", 7])
def test_what_is_no_classifier(problem: object) -> None:
    with pytest.raises(
        CheckpointError, match=f"got problem_type {problem!r} in config.json, expected one of"
    ):
        activation(3, problem)


def test_an_activation_against_the_file() -> None:
    _, questions = activation(3, "multi_label_classification", head_activation="softmax")
    assert "--head-activation: got softmax, expected sigmoid" in closed(questions)


def test_a_binary_vit_end_to_end() -> None:
    tensors = vit() | {"head.weight": torch.ones(1, DIM), "head.bias": torch.ones(1)}
    made = TimmViT().draft(contents(tensors), Questions(said(head_activation="sigmoid")))
    assert made.fields["head_activation"] == "sigmoid" and made.fields["num_classes"] == 1


# ---- departures from published values


def heads(dim: int, given: int) -> list[str]:
    questions = Questions(Given(num_heads=given))
    settle_heads(questions, None, dim)
    return questions.warnings


def test_heads_of_another_width_than_published() -> None:
    assert heads(192, 3) == heads(64, 1) == heads(768, 12) == []
    (warning,) = heads(192, 4)
    assert warning.startswith("--num-heads: got 4, but the published value is 3 at width 192")
    (warning,) = heads(64, 2)
    assert "heads of 64 columns, 1 at width 64" in warning
    assert heads(1280, 16) == [], "ViT-H has heads of 80 columns"
    assert heads(100, 4) == [], "no published width"


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ({"norm_eps": 1e-3}, "0.001, but the published value is 1e-6"),
        ({"activation": "relu"}, "value is gelu"),
    ],
)
def test_given_values_that_depart_are_warned_of(given: dict[str, Any], published: str) -> None:
    questions = Questions(said(**given))
    TimmViT().draft(contents(vit()), questions)
    (warning,) = questions.warnings
    assert published in warning and warning.startswith("--" + next(iter(given)).replace("_", "-"))


def test_what_the_files_say_is_no_departure() -> None:
    questions = Questions(Given())
    questions.settle("norm_eps", stored=1e-3, published="1e-12", usual=1e-12)
    assert not questions.warnings


def test_no_wrong_value_is_in_the_line_to_paste() -> None:
    """Neither ImageNet's normalisation nor one head for a ViT of width 64, whose files say neither."""
    questions = Questions(Given())
    tensors = vit()
    TimmViT().draft(contents(tensors), questions)
    line = closed(questions).splitlines()[-1]
    assert line == (
        "with your model's values for N, NAME, HEADS: --image-size N --preprocess NAME --pooling cls --num-heads "
        "HEADS --norm-eps 1e-6 --activation gelu"
    )
