"""A classifier's probabilities are those of the head: a sigmoid for each class, or one softmax."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_models import make_config, random_pixels

from morvit_deploy.errors import ConfigError
from morvit_deploy.exporters.coreml.contract.names import PACKAGE
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.coreml.proving.form import head_violations
from morvit_deploy.exporters.kit.write import DESCRIPTION

CONFIG = make_config(routing="none", sharing="cycle", num_recursions=1, head_activation="sigmoid")
HALF = 2e-3  # fp16 has 11 bits


@pytest.fixture(scope="module")
def bundle(exported: Callable[..., Path]) -> Path:
    return exported(CONFIG, target="coreml", precision="fp16")


def test_each_class_has_its_own_probability(bundle: Path) -> None:
    package, pixels = MilPackage(bundle / PACKAGE), random_pixels(CONFIG, 1, seed=3)
    found = package.run("main", {"image": pixels.transpose(0, 3, 1, 2).astype(np.float32)})
    expected = 1 / (1 + np.exp(-found["logits"].astype(np.float64).ravel()))
    assert np.abs(found["classLabel_probs"] - expected).max() < HALF
    assert CONFIG.labels is not None and str(found["classLabel"]) == CONFIG.labels[int(expected.argmax())]


def test_the_app_is_told(bundle: Path) -> None:
    import coremltools as ct

    assert json.loads((bundle / DESCRIPTION).read_text())["headActivation"] == "sigmoid"
    spec = ct.utils.load_spec(str(bundle / PACKAGE))
    assert spec.description.metadata.userDefined["morvit.head_activation"] == "sigmoid"
    ports = {port.name: port.shortDescription for port in spec.description.output}
    assert ports["logits"].endswith("before sigmoid.")
    assert "independent of the others (sigmoid)" in ports["classLabel_probs"]


def test_another_activation_than_the_manifests_is_found(bundle: Path) -> None:
    function = MilPackage(bundle / PACKAGE).function("main")
    assert head_violations(function, "sigmoid") == []
    (violation,) = head_violations(function, "softmax")
    assert "the probabilities are made by sigmoid, expected softmax" in violation


def test_one_class_is_no_classifier(exported: Callable[..., Path]) -> None:
    config = make_config(routing="none", sharing="cycle", num_recursions=1, num_classes=1, labels=["cat"])
    with pytest.raises(ConfigError, match="the only class is always the most probable one"):
        exported(config, target="coreml", classifier=True)
