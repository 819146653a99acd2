"""Steps that the families share: what the head reads, what its logits mean, and the names of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.settings.given import Questions

PROBLEMS = {  # Transformers' problem_type -> activation of the head
    "regression": "none",
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
}


def settle_pooling(
    questions: Questions, stored: str | None, origin: str, tensors: Mapping[str, object]
) -> Any:
    """Settle what the head reads, which the tensors do not determine, except that a mean is normalized by `fc_norm`.

    `tensors` are the source's, by name.
    """
    after = any(name.endswith("fc_norm.weight") for name in tensors)
    if stored == "mean" and after:
        stored, origin = "mean_norm", f"{origin}, and fc_norm"
    if questions.given.pooling == "mean" and after:
        raise ConfigError(
            "--pooling: got mean, expected mean_norm: the file has fc_norm, a norm after the mean (or cls, if its "
            "fc_norm follows CLS)"
        )
    published = "mean_norm, where there is fc_norm" if after else "cls, in timm's ViT and DeiT"
    example = "mean_norm" if after else "cls"
    return questions.settle("pooling", stored=stored, origin=origin, published=published, example=example)


def settle_head_activation(questions: Questions, classes: int, problem: object = None) -> Any:
    """Settle the activation of the head from Transformers' `problem_type` or the command line.

    The default for several logits is softmax, which is recorded. For one logit it is required, because its softmax is
    always 1.
    """
    if problem is not None and problem not in PROBLEMS:
        raise CheckpointError(
            f"got problem_type {problem!r} in config.json, expected one of {', '.join(PROBLEMS)}: other heads are "
            "not supported"
        )
    stored = PROBLEMS.get(str(problem))
    if classes == 1 and stored not in ("sigmoid", "none"):
        if questions.given.head_activation == "softmax":
            raise ConfigError(
                "--head-activation: got softmax for one logit, whose probability would always be 1; expected "
                "sigmoid, or none for a regression"
            )
        return questions.settle(
            "head_activation",
            published="sigmoid for a binary classifier; none for a regression, Transformers' meaning of one logit",
            example="sigmoid",
        )
    if stored is None and questions.given.head_activation is None:
        questions.note(
            "head_activation", "softmax", "default for several classes; or --head-activation sigmoid, none"
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
