"""The shipped models: their figures hold, and their bundles answer as they do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from places import EXAMPLES
from safetensors import safe_open

from morvit_deploy.bundle.images import open_images
from morvit_deploy.bundle.pixels import normalise
from morvit_deploy.demo.examples import check_scene_models
from morvit_deploy.exporters.api import export
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.model.checkpoint import WEIGHTS, load_checkpoint
from morvit_deploy.model.config import load_config
from morvit_deploy.model.macs import dense_macs

MODELS = ["digits-expert", "digits-token"]
LARGEST_CHECKPOINT = 2_000_000  # bytes: the repository stays light
DEGENERATE = 0.1  # |AUC - 0.5| up to which depth does not tell the digit from the background
SURE_AUC, SURE_TOP1 = 0.6, 0.95  # deeper on the digit; what the training is meant to reach
WINNER, SISTER = "scenes-thresholds", "scenes-topk"
SCENES_AUC, SCENES_TOP1 = 0.9, 0.9
CHANCE = 0.05  # of top-1 between 5,000 scenes and 200: four standard errors at 97 %


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


@pytest.mark.parametrize("name", [WINNER, SISTER])
def test_recorded_training_on_scenes_meets_its_aims(name: str) -> None:
    record = json.loads((EXAMPLES / name / "training.json").read_text())
    assert record["images"] == 5000 and record["top1"] >= SCENES_TOP1
    assert record["auc"] >= (
        SCENES_AUC if name == WINNER else SURE_AUC
    )  # top-k pads sparse scenes with background
    weights = EXAMPLES / name / WEIGHTS
    assert weights.stat().st_size <= LARGEST_CHECKPOINT
    with safe_open(weights, framework="numpy") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118  # no mapping


def test_the_winner_owns_thresholds_and_its_sister_does_not() -> None:
    winner, sister = (load_config(EXAMPLES / name) for name in (WINNER, SISTER))
    assert winner.thresholds is not None and sister.thresholds is None
    check_scene_models(winner, sister)
    recipes = [
        json.loads((EXAMPLES / name / "training.json").read_text())["recipe"] for name in (WINNER, SISTER)
    ]
    assert [recipe.pop("selection") for recipe in recipes] == ["batch", "image"]
    assert recipes[0] == recipes[1], "trained alike but for the selection"
    tokens = json.loads((EXAMPLES / WINNER / "training.json").read_text())["tokens_by_objects"]
    assert tokens["9"] > 2 * tokens["1"], "full scenes need more tokens than sparse ones"


@pytest.mark.parametrize("name", [WINNER, SISTER])
def test_recorded_top1_holds_on_the_shipped_scenes(name: str, tmp_path: Path) -> None:
    model = load_checkpoint(EXAMPLES / name)
    images = open_images(EXAMPLES / "scenes-test", model.config)
    pixels, labels = images.all(), np.array(images.labels)
    export(EXAMPLES / name, tmp_path / "bundle", batch="dynamic")
    with open_bundle(tmp_path / "bundle") as session:
        found = session.logits(pixels).argmax(axis=-1)
    parts = torch.from_numpy(normalise(pixels, model.config.preprocess)).split(20)
    eager = torch.cat([model(part).logits for part in parts]).argmax(dim=-1).numpy()
    assert (found == eager).all()
    record = json.loads((EXAMPLES / name / "training.json").read_text())
    assert abs((found == labels).mean() - record["top1"]) <= CHANCE
