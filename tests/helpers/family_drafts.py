"""Drafts of checkpoints of other code: small models of each family, and what is made of them or refused."""

from __future__ import annotations

from typing import Any

import pytest
import source_models
from foreign_checkpoints import CLASSES, DIM, HEADS, MLP, PATCH, SIZE, contents, said
from source_models import randomise
from third_party import third_party
from torch import Tensor

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.detection import FAMILIES
from morvit_deploy.sources.families.family import Draft
from morvit_deploy.sources.settings.given import Given, Questions

FAMILY = {family.name: family for family in FAMILIES}
Tensors = dict[str, Tensor]
EDGE_SAID: dict[str, Any] = {
    "preprocess": "cifar10", "norm_eps": 1e-12, "num_heads": 2, "activation": "gelu", "image_size": 32,
}  # fmt: skip
EDGE_CONFIG: dict[str, Any] = {
    "model_type": "mor_vit", "hidden_size": 16, "num_hidden_layers": 5, "num_attention_heads": 2,
    "intermediate_size": 24, "hidden_act": "gelu", "layer_norm_eps": 1e-12, "image_size": 32, "patch_size": 8,
}  # fmt: skip


def draft(family: str, tensors: Tensors, given: Given, **fields: Any) -> Draft:
    """A family's draft, with every question answered."""
    questions = Questions(given)
    made = FAMILY[family].draft(contents(tensors, **fields), questions)
    questions.close(contents({}).path, FAMILY[family].title)
    return made


def refused(family: str, tensors: Tensors, given: Given | None = None, **fields: Any) -> str:
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        draft(family, tensors, given or said(), **fields)
    return str(caught.value)


def hf(
    kind: str = "ViT", of: str = "ForImageClassification", **options: Any
) -> tuple[Tensors, dict[str, Any]]:
    """Tensors by version 5's names, and the fields of config.json."""
    transformers = third_party("transformers")
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=DIM, num_hidden_layers=2, num_attention_heads=HEADS, intermediate_size=MLP, image_size=SIZE,
        patch_size=PATCH, num_labels=CLASSES, **options,
    )  # fmt: skip
    model = randomise(getattr(transformers, f"{kind}{of}")(config), seed=1)
    return dict(model.state_dict()), config.to_dict()


def edge(dora: bool = False) -> Tensors:
    model = source_models.EdgeRecViT()
    randomise(model, seed=1)
    if dora:
        model.add_dora("shared", rank=4, alpha=6.0)
    return dict(model.state_dict())
