"""The shipped models: their figures hold, and their bundles answer as they do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from places import EXAMPLES

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.pixels import normalise
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.model.checkpoint import WEIGHTS, load_checkpoint
from morvit_deploy.model.macs import dense_macs

MODELS = ["digits-expert", "digits-token"]
LARGEST_CHECKPOINT = 2_000_000  # bytes: the repository stays light
DEGENERATE = 0.1  # |AUC - 0.5| up to which depth does not tell the digit from the background
SURE_AUC, SURE_TOP1 = 0.6, 0.95  # deeper on the digit; what the training is meant to reach


@pytest.mark.parametrize("name", MODELS)
def test_recorded_training_meets_its_aims(name: str) -> None:
    record = json.loads((EXAMPLES / name / "training.json").read_text())
    assert record["top1"] >= SURE_TOP1 and record["top1_shipped"] >= SURE_TOP1
    assert abs(record["auc"] - 0.5) > DEGENERATE and record["auc"] >= SURE_AUC
    assert record["digit_depth"] > record["background_depth"]
    assert record["minutes"] <= 30
    assert (EXAMPLES / name / WEIGHTS).stat().st_size <= LARGEST_CHECKPOINT


@pytest.mark.parametrize("name", MODELS)
def test_top1_of_the_bundle_is_the_references(name: str, tmp_path: Path) -> None:
    model = load_checkpoint(EXAMPLES / name)
    images = open_images(EXAMPLES / "digits-test", model.config)
    pixels, labels = images.all(), np.array(images.labels)
    manifest = export(EXAMPLES / name, tmp_path / "bundle", batch="dynamic").manifest
    with open_bundle(tmp_path / "bundle") as session:
        found = session.logits(pixels).argmax(axis=-1)
    parts = torch.from_numpy(normalise(pixels, model.config.preprocess)).split(20)
    eager = torch.cat([model(part).logits for part in parts]).argmax(dim=-1).numpy()
    assert (found == eager).all()
    assert (found == labels).mean() >= SURE_TOP1
    if name == "digits-expert":
        assert manifest.macs["topk"] <= 0.5 * dense_macs(model.config)
