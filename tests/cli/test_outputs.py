"""What `-o` and `--force` replace, on real command lines: never the user's own files, never an input."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from commands import refused, run


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        "export {checkpoint} -o {images}/out",
        "inspect {checkpoint} -o {images}/maps",
        "calibrate {checkpoint} -o {images}/plan.json",
    ],
)
def test_an_output_among_the_images_is_refused(
    tiny_checkpoint: Path, image_files: list[Path], words: str
) -> None:
    images = image_files[0].parent
    before = contents(images)
    given = words.format(checkpoint=tiny_checkpoint, images=images).split()
    assert "choose a place outside" in refused(*given, "--images", images)
    assert contents(images) == before


def test_calibrate_never_replaces_the_config_of_a_checkpoint(
    checkpoint: Path, tiny_checkpoint: Path, image_files: list[Path]
) -> None:
    before = contents(checkpoint)
    for given in (checkpoint, tiny_checkpoint):
        words = ("calibrate", given, "--images", image_files[0].parent, "-o", checkpoint / "config.json")
        assert "config.json" in refused(*words)
        message = refused(*words, "--force")
        assert "holds something else" in message or "an input of this command" in message
    assert contents(checkpoint) == before


def test_force_keeps_the_only_copy_of_a_checkpoint(copied_bundle: Path, tiny_checkpoint: Path) -> None:
    """It lies in the folder that `-o` names, a bundle of ours."""
    inner = Path(shutil.copytree(tiny_checkpoint, copied_bundle / "checkpoint"))
    before = contents(copied_bundle)
    assert "an input of this command" in refused("export", inner, "-o", copied_bundle, "--force")
    assert "an input of this command" in refused("convert", inner, "-o", inner, "--force")
    message = refused("export", tiny_checkpoint, "-o", copied_bundle, "--force")
    assert "also holds checkpoint/config.json, checkpoint/model.safetensors" in message
    message = refused("init", "--preset", "morvit_tiny_digits", "-o", copied_bundle, "--force")
    assert "has no config.json of ours" in message
    assert contents(copied_bundle) == before


def test_force_keeps_photos_and_notes_in_a_checkpoint(checkpoint: Path) -> None:
    (checkpoint / "notes.txt").write_text("mine")
    before = contents(checkpoint)
    message = refused("init", "--preset", "morvit_tiny_digits", "-o", checkpoint, "--force")
    assert "also holds notes.txt" in message
    assert contents(checkpoint) == before
    (checkpoint / "notes.txt").unlink()
    assert run("init", "--preset", "morvit_tiny_digits", "-o", checkpoint, "--force").exit_code == 0


def test_force_keeps_an_input_that_is_a_link_into_the_output(
    copied_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    """As in a cache: the checkpoint's folder holds links, its data lies in the output."""
    target = copied_bundle / "model.safetensors"
    shutil.copyfile(tiny_checkpoint / "model.safetensors", target)
    linked = tmp_path / "linked"
    linked.mkdir()
    shutil.copyfile(tiny_checkpoint / "config.json", linked / "config.json")
    (linked / "model.safetensors").symlink_to(target)
    assert "an input of this command" in refused("export", linked, "-o", copied_bundle, "--force")
    assert target.is_file()


def test_predict_replaces_no_picture_of_the_user(
    tmp_path: Path, tiny_bundle: Path, image_files: list[Path]
) -> None:
    mine = tmp_path / "maps" / f"{image_files[0].stem}-depth.png"
    mine.parent.mkdir()
    shutil.copyfile(image_files[0], mine)
    words = ("predict", tiny_bundle, image_files[0], "--depth-map", mine.parent)
    assert "holds something else" in refused(*words)
    assert mine.read_bytes() == image_files[0].read_bytes()
    mine.unlink()
    assert [run(*words).exit_code for _ in range(2)] == [0, 0], "our own picture is replaced"


@pytest.mark.skipif(not os.access(os.devnull, os.W_OK) or os.name == "nt", reason="needs devices")
@pytest.mark.parametrize("force", [[], ["--force"]], ids=["plain", "force"])
def test_a_device_is_no_output(tiny_bundle: Path, tiny_checkpoint: Path, force: list[str]) -> None:
    assert "not an ordinary file" in refused("bench", tiny_bundle, "-o", os.devnull, *force)
    assert "not a folder" in refused("init", "--preset", "morvit_tiny_digits", "-o", os.devnull, *force)
