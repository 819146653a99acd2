"""Steps that the families share: what the head reads, what its logits mean, and the names of its classes."""

from __future__ import annotations

from typing import Any

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.settings.given import Questions

PROBLEMS = {  # Transformers' problem_type -> activation of the head
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}
MEAN = "it classifies by the mean of all tokens, not by CLS"


def settle_pooling(questions: Questions, stored: str | None, origin: str) -> None:
    """Settle what the head reads, which the tensors do not determine; CheckpointError for the mean of all tokens."""
    pooling = questions.settle(
        "pooling", stored=stored, origin=origin, published="cls, in timm's ViT and DeiT", example="cls"
    )
    if pooling == "mean":
        raise CheckpointError(
            f"pooling 'mean' ({questions.settled['pooling'].origin}): {MEAN}; morvit/1 supports 'cls' only"
        )


def settle_head_activation(questions: Questions, classes: int, problem: object = None) -> Any:
    """Settle the activation of the head from Transformers' `problem_type` or the command line.

    The default for several logits is softmax, which is recorded. For one logit it is required, because its softmax is
    always 1.
    """
    if problem is not None and problem not in PROBLEMS:
        raise CheckpointError(
            f"got problem_type {problem!r} in config.json, expected one of {', '.join(PROBLEMS)}: morvit/1 supports "
            "classifiers, whose logits are scores of classes"
        )
    stored = PROBLEMS.get(str(problem))
    if classes == 1 and stored != "sigmoid":
        if questions.given.head_activation == "softmax":
            raise ConfigError(
                "--head-activation: got softmax for one logit, whose probability would always be 1; expected sigmoid"
            )
        return questions.settle(
            "head_activation",
            published="sigmoid for a binary classifier; Transformers takes one logit for a regression, which is not "
            "supported",
            example="sigmoid",
        )
    if stored is None and questions.given.head_activation is None:
        questions.note(
            "head_activation", "softmax", "default for several classes; or --head-activation sigmoid"
        )
        return "softmax"
    return questions.settle(
        "head_activation",
        stored=stored,
        origin=f"config.json, problem_type {problem!r}",
        published="softmax",
    )


def labels_of(config: dict[str, Any] | None, classes: int) -> list[str] | None:
    """Return class names from `id2label`, None for Transformers' placeholders."""
    found = (config or {}).get("id2label")
    if not isinstance(found, dict) or len(found) != classes:
        return None
    names = [found.get(str(i)) for i in range(classes)]
    if not all(isinstance(name, str) for name in names) or names == [f"LABEL_{i}" for i in range(classes)]:
        return None
    return [str(name) for name in names]
