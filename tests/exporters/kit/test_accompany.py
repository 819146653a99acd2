"""MoRViTKit beside bundles that return an array: golden images of the reference, and a proof that finds others."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bucket_plans import EXPERT, threshold_ladder
from planted import FALSE_COPIES, KIT, Edited, edited, found, golden_logits, in_json, name_of
from tiny_models import make_config, normalised, random_model

from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.kit.accompany import lacks
from morvit_deploy.exporters.kit.write import DESCRIPTION, GOLDEN
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.trace import Routing

ROUNDED = 1e-6  # × max(1, max |value|): golden values are float32
CASES: dict[str, tuple[dict[str, Any], Plan | None]] = {
    "one function": ({"target": "coreml", "output": "features", "precision": "fp32"}, None),
    "buckets": ({"target": "coreml", "output": "tokens", "precision": "fp32"}, threshold_ladder()),
    "Core AI": ({"target": "coreai", "output": "tokens"}, None),
}


@pytest.mark.parametrize(("options", "plan"), CASES.values(), ids=CASES)
def test_golden_images_return_the_arrays_of_the_reference(
    options: dict[str, Any], plan: Plan | None, exported: Callable[..., Path]
) -> None:
    bundle = exported(EXPERT, plan=plan, **options)
    golden = bundle / KIT / GOLDEN
    facts, output = json.loads((golden / "golden.json").read_text()), options["output"]
    pixels = np.fromfile(golden / "golden-pixels.bin", np.uint8)
    pixels = pixels.reshape(facts["count"], facts["height"], facts["width"], 3)
    route = Routing(plan.thresholds) if plan else None
    model = random_model(EXPERT, dtype=torch.float64)
    expected = model(normalised(EXPERT, pixels), route, output).vectors.numpy()
    numbers = np.fromfile(golden / "golden-logits.bin", "<f4").reshape(expected.shape)
    assert np.abs(numbers - expected).max() <= ROUNDED * max(1.0, np.abs(expected).max())
    described = json.loads((bundle / DESCRIPTION).read_text())
    assert (described["output"], described["outputShape"]) == (output, list(expected.shape[1:]))


@pytest.fixture
def of_features(exported: Callable[..., Path]) -> Path:
    options, plan = CASES["one function"]
    return exported(EXPERT, plan=plan, **options)


class Beside:
    """Files beside a package, which is not opened."""

    def __init__(self, package: Path) -> None:
        self.package = package

    def save(self) -> None:
        """Files are written when they are changed."""


def another_shape(content: dict[str, Any]) -> None:
    content["outputShape"] = [content["outputShape"][0] + 1]


@pytest.mark.parametrize(
    "change", [in_json(DESCRIPTION, another_shape), golden_logits, FALSE_COPIES[-1]], ids=name_of
)
def test_other_data_is_found(change: Callable[[Edited], None], of_features: Path, tmp_path: Path) -> None:
    checkpoint = of_features.parent / "checkpoint"
    assert found(of_features, checkpoint) == ""
    changed = edited(of_features, tmp_path, PACKAGE, Beside, change)
    assert "MoRViT" in found(changed, checkpoint)


def test_what_the_kit_lacks() -> None:
    """An array has no activation; classes without one are numbers that an app cannot name."""
    regression = make_config(head_activation="none", labels=None)
    assert [lacks(regression, output) for output in ("features", "tokens")] == ["", ""]
    assert "head_activation none" in lacks(regression, "logits")
    four = make_config(in_channels=4, preprocess={"mean": [0.5] * 4, "std": [0.5] * 4})
    assert "4 channels" in lacks(four, "features")
