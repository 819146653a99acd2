"""`predict` on the command line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from adaptive_plans import threshold_plan
from broken_answers import answer_nan, fill_with_nan
from bucket_plans import EXPERT, threshold_ladder
from commands import answer, refused, run
from PIL import Image
from tiny_models import make_config, normalised

from morvit_deploy import open_bundle
from morvit_deploy.bundle.pixels import read_image, synthetic_images
from morvit_deploy.model.checkpoint import load_checkpoint


def test_predict_json(tiny_bundle: Path, tiny_checkpoint: Path, image_files: list[Path]) -> None:
    told = answer("predict", tiny_bundle, *image_files, "--logits", "--top", 3)["predictions"]
    assert [row["image"] for row in told] == [str(path) for path in image_files]
    model = load_checkpoint(tiny_checkpoint).double()
    config = model.config
    pixels = np.stack([read_image(path, config.preprocess, config.image_size) for path in image_files])
    expected = model(normalised(config, pixels)).logits
    for row, logits in zip(told, expected, strict=True):
        assert len(row["logits"]) == 10
        assert np.abs(np.array(row["logits"]) - logits.numpy()).max() < 1e-4
        assert [guess["index"] for guess in row["top"]] == logits.argsort(descending=True)[:3].tolist()
        assert row["top"][0]["label"] == config.labels[row["top"][0]["index"]]
        assert row["top"][0]["probability"] == pytest.approx(logits.softmax(0).max().item(), abs=1e-4)


def test_predict_leaves_logits_out_unless_asked(tiny_bundle: Path, image_files: list[Path]) -> None:
    (row,) = answer("predict", tiny_bundle, image_files[0])["predictions"]
    assert set(row) == {"image", "bucket", "top"}


def test_a_depth_map_of_tokens_that_come_back(
    exported: Callable[..., Path], image_files: list[Path], tmp_path: Path
) -> None:
    bundle = exported(make_config(routing="expert_choice_flat"), batch=4, with_depth=True)
    told = answer("predict", bundle, *image_files, "--depth-map", tmp_path / "maps")["predictions"]
    assert all(Path(row["depth_map"]).is_file() for row in told)


def test_predict_takes_the_newest_bundle(tiny_bundle: Path, image_files: list[Path], inside: Path) -> None:
    for age, name in ((100, "new"), (200, "old")):
        shutil.copytree(tiny_bundle, inside / "build" / name)
        stamp = (inside / "build" / name / "manifest.json").stat().st_mtime - age
        os.utime(inside / "build" / name / "manifest.json", (stamp, stamp))
    (inside / "build" / "old" / "weights.bin").write_bytes(b"")
    answer("predict", image_files[0])


REASONS = {"text": "is not an image", "truncated": "cut off", "small": "smaller than", "16 bit": "8 bits a channel",
           "missing": "does not exist", "folder": "is a folder"}  # fmt: skip  # of each bad image


def bad_image(path: Path, what: str, good: Path) -> Path:
    """A path that cannot be read as an image."""
    if what == "text":
        path.write_text("no picture")
    elif what == "truncated":
        path.write_bytes(good.read_bytes()[:900])
    elif what == "small":
        Image.new("RGB", (9, 9)).save(path)
    elif what == "16 bit":
        Image.fromarray(np.zeros((40, 40), np.uint16)).save(path)
    elif what == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize("what", REASONS)
def test_a_bad_image_does_not_lose_the_others(
    tiny_bundle: Path, image_files: list[Path], tmp_path: Path, what: str
) -> None:
    bad = bad_image(tmp_path / "bad.png", what, image_files[0])
    result = run("predict", tiny_bundle, image_files[0], bad, image_files[1], "--json")
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert [row["image"] for row in told["predictions"]] == [str(path) for path in image_files[:2]]
    (error,) = told["errors"]
    assert error["image"] == str(bad) and REASONS[what] in error["error"]
    assert f"warning: skipped: {bad} " in result.stderr and "error: 1 of 3 images" in result.stderr
    shown = run("predict", tiny_bundle, image_files[0], bad)
    assert shown.exit_code == 1 and image_files[0].name in shown.stdout and "bad.png" not in shown.stdout


@pytest.mark.parametrize("what", REASONS)
def test_nothing_but_bad_images_is_refused(
    tiny_bundle: Path, image_files: list[Path], tmp_path: Path, what: str
) -> None:
    bad = bad_image(tmp_path / "bad.png", what, image_files[0])
    assert REASONS[what] in refused("predict", tiny_bundle, bad)
    message = refused("predict", tiny_bundle, bad, bad)
    assert "no image could be read" in message and message.count(REASONS[what]) == 2


NOT_FINITE = "logits in bucket 'topk', run by ONNX Runtime"


def test_a_bundle_that_returns_nan_is_an_error(copied_bundle: Path, image_files: list[Path]) -> None:
    fill_with_nan(copied_bundle)
    for words in ((), ("--json",)):
        message = refused("predict", copied_bundle, image_files[0], *words, status=1)
        assert f"{image_files[0]}: {NOT_FINITE}" in message and "got NaN or Inf in 10 of 10" in message
    message = refused(
        "predict", copied_bundle, *image_files[:2], image_files[0].parent / "gone.png", status=1
    )
    assert "no image could be classified" in message and message.count(NOT_FINITE) == 2


def test_one_image_of_nan_does_not_lose_the_others(
    tiny_bundle: Path, image_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_nan(monkeypatch, 1)
    result = run("predict", tiny_bundle, *image_files[:3], "--json")
    assert result.exit_code == 1, result.output
    told = json.loads(result.stdout)
    assert [row["image"] for row in told["predictions"]] == [str(image_files[0]), str(image_files[2])]
    assert [row["image"] for row in told["errors"]] == [str(image_files[1])]
    assert f"skipped: {image_files[1]}: {NOT_FINITE}" in result.stderr
    assert "error: 1 of 3 images could not be classified" in result.stderr


def test_what_is_taken_of_a_folder_is_said(
    tiny_bundle: Path, image_files: list[Path], tmp_path: Path
) -> None:
    photos = Path(shutil.copytree(image_files[0].parent, tmp_path / "photos"))
    (photos / ".ipynb_checkpoints").mkdir()
    shutil.copy(image_files[0], photos / ".ipynb_checkpoints" / "0-checkpoint.png")
    (photos / "b.heic").write_bytes(b"x")
    (photos / "c.png").symlink_to("gone.png")
    result = run("predict", tiny_bundle, photos, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["images_read"]
    skipped = {".heic (not supported; convert to PNG or JPEG)": 1, "broken link": 1, "hidden": 1}
    assert told == {"taken": 6, "skipped": skipped, "exif": False, "remarks": []}
    line = "note: 6 images of {}; skipped 1 .heic (not supported; convert to PNG or JPEG), 1 broken link, 1 hidden"
    assert line.format(photos) in result.stderr


def test_a_folder_without_images_holds_none(tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused("predict", tiny_bundle, tmp_path / "empty")
    assert f"note: 0 images of {tmp_path / 'empty'}" in message and "is a folder without images" in message


def test_the_exif_orientation_is_said_and_applied(tiny_bundle: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = synthetic_images(1, 48, seed=7)[0]
    Image.fromarray(stored).save(tmp_path / "stored.png", exif=exif)
    Image.fromarray(stored[::-1].transpose(1, 0, 2).copy()).save(tmp_path / "upright.png")
    plain = run("predict", tiny_bundle, tmp_path / "stored.png", "--json", "--logits")
    assert "warning: the EXIF orientation of 1 of 1 image is not applied" in plain.stderr
    turned = run("predict", tiny_bundle, tmp_path / "stored.png", "--json", "--logits", "--exif")
    assert "EXIF" not in turned.stderr and json.loads(turned.stdout)["images_read"]["exif"] is True
    expected = answer("predict", tiny_bundle, tmp_path / "upright.png", "--logits")
    logits = [json.loads(one.stdout)["predictions"][0]["logits"] for one in (plain, turned)]
    assert logits[1] == expected["predictions"][0]["logits"] != logits[0]


def test_an_image_given_twice_is_answered_twice(tiny_bundle: Path, image_files: list[Path]) -> None:
    told = answer("predict", tiny_bundle, image_files[0], image_files[0])["predictions"]
    assert len(told) == 2 and told[0] == told[1]


def test_no_image_and_no_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    assert "no IMAGE given" in refused("predict", tiny_bundle)
    assert "nowhere does not exist" in refused("predict", tmp_path / "nowhere", "a.png")


def test_a_bundle_after_the_images_is_named(tiny_bundle: Path, image_files: list[Path]) -> None:
    message = refused("predict", image_files[0], tiny_bundle)
    assert f"got the bundle {tiny_bundle} among the images; give it before them" in message


def test_folders_are_replaced_by_their_images(
    tiny_bundle: Path, image_files: list[Path], tmp_path: Path, inside: Path
) -> None:
    """Other files in them are passed over; a folder of images in the first place is no bundle."""
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    shutil.copy(image_files[0], photos / "b.png")
    shutil.copy(image_files[1], photos / "more" / "a.png")
    (photos / "notes.txt").write_text("no picture")
    told = answer("predict", tiny_bundle, photos, image_files[2])
    names = [Path(row["image"]).name for row in told["predictions"]]
    assert names == ["b.png", "a.png", image_files[2].name] and told["errors"] == []
    shutil.copytree(tiny_bundle, inside / "build" / "newest")
    assert len(answer("predict", photos)["predictions"]) == 2
    assert len(answer("predict", photos, image_files[2])["predictions"]) == 3


def test_predict_upscales_when_asked(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "small.png")
    assert len(answer("predict", tiny_bundle, tmp_path / "small.png", "--upscale")["predictions"]) == 1


def test_predict_draws_depth_maps(tiny_bundle: Path, image_files: list[Path], tmp_path: Path) -> None:
    told = answer("predict", tiny_bundle, *image_files[:2], "--depth-map", tmp_path / "maps")["predictions"]
    for row in told:
        with Image.open(row["depth_map"]) as picture:
            picture.load()
    assert len(list((tmp_path / "maps").iterdir())) == 2


def test_a_depth_map_needs_a_bundle_with_depth(
    exported: Callable[..., Path], image_files: list[Path], tmp_path: Path, tiny_bundle: Path
) -> None:
    bundle = exported(make_config(routing="none", sharing="middle_cycle"))
    message = refused("predict", bundle, image_files[0], "--depth-map", tmp_path / "maps")
    assert "--with-depth" in message
    assert not (tmp_path / "maps").exists()


def test_predict_warns_of_degenerate_routing(
    exported: Callable[..., Path], image_files: list[Path], tmp_path: Path, tiny_bundle: Path
) -> None:
    """Everybody runs every step (paper, Figure 5); a healthy schedule draws no warning."""
    uniform = exported(make_config(capacity=[16, 16, 16]), with_depth=True)
    for bundle, expected in ((uniform, True), (tiny_bundle, False)):
        result = run("predict", bundle, image_files[0], "--depth-map", tmp_path / bundle.parent.name)
        assert result.exit_code == 0, result.output
        assert ("warning: " in result.stderr) == expected, result.stderr


def test_predict_names_the_bucket_that_answered(
    exported: Callable[..., Path], image_files: list[Path]
) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder())
    with open_bundle(bundle) as session:
        pixels = np.stack([session.read(path) for path in image_files])
        numbers = session.run(pixels)["bucket"]
    names = [threshold_ladder().buckets[number].name for number in numbers]
    assert len(set(names)) > 1, "choose pictures that need different buckets"
    assert [row["bucket"] for row in answer("predict", bundle, *image_files)["predictions"]] == names
    result = run("predict", bundle, *image_files, "--top", 1)
    assert result.exit_code == 0, result.output
    for path, name in zip(image_files, names, strict=True):
        line = next(line for line in result.stdout.splitlines() if path.name in line)
        assert name in line.split()


def test_degenerate_thresholds_are_not_blamed_on_a_capacity(
    exported: Callable[..., Path], image_files: list[Path], tmp_path: Path
) -> None:
    """Under thresholds no schedule fixes the depths; here everybody leaves at once."""
    config = make_config()
    bundle = exported(config, plan=threshold_plan(config, (1e30, 0.0, 0.2), []), with_depth=True)
    result = run("predict", bundle, image_files[0], "--depth-map", tmp_path / "maps")
    assert result.exit_code == 0, result.output
    assert "warning: " in result.stderr
    assert "capacity" not in result.stderr
