"""`md.calibrate_merges`: a schedule within a budget, its report, and its file, which `export` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny_models import make_config, random_model, random_pixels

import morvit_deploy as md
from morvit_deploy.model.checkpoint import fingerprint


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("merges") / "vit"
    md.save_checkpoint(random_model(make_config(routing="none", sharing="none", cycle_depth=4)), folder)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number, pixels in enumerate(random_pixels(make_config(), 6)):
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"{number}.png")
    return folder


def test_from_photos_to_a_bundle(vit: Path, photos: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    found = md.calibrate_merges(vit, photos, "0.75x", tries=4, progress=shares.append)
    assert found.chosen.macs <= found.budget == 0.75 * found.unmerged
    assert found.chosen in found.points and found.images == 6
    assert shares == sorted(shares) and shares[-1] <= 1
    file = found.save(tmp_path / "merges.json")
    fields = json.loads(file.read_text())
    assert fields["checkpoint"] == fingerprint(vit)
    assert fields["calibration"]["chosen"]["macs"] == found.chosen.macs
    with pytest.raises(md.OutputError):
        found.save(file)
    found.save(file, force=True)
    exported = md.export(vit, tmp_path / "merged", merge=file)
    assert exported.verification.passed
    assert exported.manifest.macs["topk"] == found.chosen.macs
    verification = md.verify(tmp_path / "merged", vit)  # the unmerged checkpoint
    assert verification.passed and verification.same_checkpoint


def test_the_report_shows_the_curve(vit: Path, photos: Path) -> None:
    found = md.calibrate_merges(vit, photos, "0.8x", tries=0)
    text = found.report().markdown()
    assert "same class" in text and "→" in text and found.conclusion in text
    assert "fewer than the unmerged ViT" in repr(found.conclusion)
    assert "MergeCalibrated(" in repr(found)


@pytest.mark.parametrize(
    ("budget", "message"), [("0.1x", "expected .* MACs, or 0.* to 1x"), ("fast", "got 'fast'")]
)
def test_bad_budgets(vit: Path, photos: Path, budget: str, message: str) -> None:
    with pytest.raises(md.PlanError, match=message):
        md.calibrate_merges(vit, photos, budget)


def test_another_model(photos: Path, tmp_path: Path) -> None:
    md.save_checkpoint(random_model(make_config()), tmp_path / "routed")
    with pytest.raises(md.ConfigError, match="expected a plain ViT"):
        md.calibrate_merges(tmp_path / "routed", photos, "0.8x")


def test_a_negative_number_of_tries(vit: Path, photos: Path) -> None:
    with pytest.raises(md.PlanError, match="tries: got -1"):
        md.calibrate_merges(vit, photos, "0.8x", tries=-1)
