"""Token merging on the command line: `export --merge`, and `calibrate` of a plain ViT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import answer, refused, run
from foreign_checkpoints import SAY, vit
from PIL import Image
from safetensors.torch import save_file
from tiny_models import make_config, random_model, random_pixels

import morvit_deploy as md


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a plain ViT in both formats, and photos."""
    config = make_config(routing="none", sharing="none", cycle_depth=4)
    md.save_checkpoint(random_model(config), tmp_path / "vit")
    save_file(vit("abcd"), tmp_path / "vit.safetensors")
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(random_pixels(config, 4)):
        Image.fromarray(pixels).resize((40, 40)).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_export_of_a_file_of_other_code(folder: Path) -> None:
    manifest = answer("export", "vit.safetensors", *SAY, "--merge", "2", "-o", "out")["manifest"]
    assert manifest["config"]["capacity"] == [14, 12, 10]
    assert run("verify", "out", "--checkpoint", "vit.safetensors", *SAY).exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--merge", "9"], "merge: got 9, expected 1 to 4"),
        (["--merge", "1,1"], "got 2 numbers, expected one, or 3"),
        (["--merge-to", "0.01"], "--merge-to: got 0.01, expected a share from"),
        (["--merge", "2", "--merge-to", "0.5"], "--merge-to: got it beside merge"),
        (["--proportional-attention"], "no tokens merge"),
    ],
    ids=str,
)
def test_wrong_merges(folder: Path, words: list[str], message: str) -> None:
    assert message in refused("export", "vit", *words, "-o", "out")
    assert not (folder / "out").exists()


def test_from_photos_to_a_bundle(folder: Path) -> None:
    found = answer("calibrate", "vit", "--images", "photos", "--budget-macs", "0.8x", "-o", "merges.json")
    assert found["chosen"]["macs"] <= found["budget_macs"]
    assert json.loads((folder / "merges.json").read_text())["merges"] == found["chosen"]["merges"]
    manifest = answer("export", "vit", "--merge", "merges.json", "-o", "out")["manifest"]
    assert manifest["macs"]["topk"] == found["chosen"]["macs"]
    again = ["calibrate", "vit", "--images", "photos", "--budget-macs", "0.8x", "-o", "merges.json"]
    assert "merges.json" in refused(*again)
    assert run(*again, "--force").exit_code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--budget-macs: missing; a plain ViT has no routing to calibrate"),
        (["--budget-macs", "0.8x", "--buckets", "3"], "--buckets: not used for a plain ViT"),
        (["--budget-macs", "0.8x", "--max-bad", "3"], "--max-bad: not used for a plain ViT"),
        (["--budget-macs", "0.8x", "--threads", "1"], "--threads: not used for a plain ViT"),
        (
            ["--budget-macs", "0.8x", "--budget-ms", "3"],
            "got budget_macs and budget_ms, expected one of them",
        ),
        (["--budget-ms", "-3"], "--budget-ms: got -3.0, expected a number above 0"),
        (["--budget-ms", "3", "--buckets", "3"], "whose tokens merge within --budget-ms"),
        (["--budget-macs", "2x"], "--budget-macs: got '2x', expected"),
        (["--budget-macs", "much"], "--budget-macs: got 'much', expected"),
    ],
    ids=str,
)
def test_calibration_refuses(folder: Path, words: list[str], message: str) -> None:
    assert message in refused("calibrate", "vit", "--images", "photos", *words, "-o", "merges.json")
    assert not (folder / "merges.json").exists()


def test_a_share_is_for_a_plain_vit(folder: Path) -> None:
    md.save_checkpoint(random_model(make_config()), folder / "routed")
    words = ["calibrate", "routed", "--images", "photos", "--budget-macs"]
    assert "a share as in 0.6x is for a plain ViT" in refused(*words, "0.6x")
    assert "--budget-macs: got 'much', expected a number as in 1.2e9" in refused(*words, "much")
