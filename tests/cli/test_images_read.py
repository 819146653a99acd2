"""Every command that takes a folder of images lists it by the same rule, and says what it took."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from calibration_setup import save_model
from commands import refused, run
from PIL import Image

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint

FEW = {"calibrate": ["--buckets", 1, "--limit", 4], "bench": ["--runs", 10, "--blocks", 1, "--starts", 1]}


@pytest.fixture
def words(
    tiny_bundle: Path, tiny_checkpoint: Path, inside: Path, request: pytest.FixtureRequest
) -> list[object]:
    """The command line without --images."""
    command = request.param
    what: dict[str, list[object]] = {
        "verify": [tiny_bundle, "--checkpoint", tiny_checkpoint],
        "bench": [tiny_bundle],
        "bench --device cuda": [tiny_bundle],
    }
    return [command, *what.get(command, [tiny_checkpoint]), *FEW.get(command, [])]


@pytest.fixture
def photos(image_files: list[Path], tmp_path: Path) -> Path:
    """Six pictures, of which one is turned, and what is skipped."""
    folder = Path(shutil.copytree(image_files[0].parent, tmp_path / "photos"))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(synthetic_images(1, 48)[0]).save(folder / "0.png", exif=exif)
    shutil.copytree(folder, folder / ".ipynb_checkpoints")
    (folder / "beach").mkdir()
    shutil.move(folder / "5.png", folder / "beach" / "5.PNG")
    (folder / "around").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "b.HEIC").write_bytes(b"x")
    return folder


@pytest.mark.parametrize("words", ["inspect", "verify", "calibrate", "bench"], indirect=True)
def test_the_line_is_the_same(words: list[object], photos: Path) -> None:
    result = run(*words, "--images", photos)
    assert result.exit_code == 0, result.output
    assert (
        f"note: 6 images of {photos}; skipped 1 .heic (not supported; convert to PNG or JPEG), 1 hidden, 1 linked "
        "folder that is listed already, 1 pipe or device; no subfolder (beach) is named by a class, so there are no "
        "labels\nwarning: the EXIF orientation of 1 of 6 images is not applied"
    ) in result.stderr
    turned = run(
        *words, "--images", photos, "--exif", *(["--force"] if words[0] in ("calibrate", "inspect") else [])
    )
    assert turned.exit_code == 0, turned.output
    assert "EXIF" not in turned.stderr


@pytest.mark.parametrize("words", ["inspect", "verify", "calibrate", "bench", "export"], indirect=True)
def test_a_table_that_contradicts_itself_is_one_message(
    words: list[object], image_files: list[Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(image_files[0].parent, tmp_path / "photos"))
    (folder / "labels.csv").write_text("file,label\n0.png,1\n1.png,2\n0.png,3\n")
    message = refused(*words, "--images", folder)
    assert f"{folder / 'labels.csv'}: line 4: 0.png is named in line 2 already; keep one of them" in message


def test_scores_of_inspect_that_are_not_finite(image_files: list[Path], tmp_path: Path) -> None:
    model = load_checkpoint(save_model(tmp_path / "model"))
    model.head_layers()[-1].weight.mul_(1e37)
    model.norm.weight.mul_(1e4)
    save_checkpoint(model, tmp_path / "overflowing")
    message = refused("inspect", tmp_path / "overflowing", "--images", image_files[0].parent, status=1)
    assert "logits of the checkpoint: got NaN or Inf in" in message


def test_exif_is_for_images(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    message = refused("verify", tiny_bundle, "--checkpoint", tiny_checkpoint, "--exif")
    assert "--limit, --upscale and --exif are for --images" in message
