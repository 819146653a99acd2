"""The folders of the examples: which are needed, and what is refused in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_setup import save_pictures
from scene_runs import SCENE_CONFIG
from tiny_models import make_config

from morvit_deploy.bundle.images import open_images
from morvit_deploy.demo.examples import FOLDERS, check_scene_models, find_examples
from morvit_deploy.demo.objects import read_objects
from morvit_deploy.errors import ConfigError, ImageError
from morvit_deploy.model.config import Config


def test_missing_folders_are_named(tmp_path: Path) -> None:
    for name in FOLDERS:
        if not name.startswith("scenes"):
            (tmp_path / name).mkdir()
    with pytest.raises(ConfigError) as caught:
        find_examples(tmp_path)
    assert "missing scenes-thresholds, scenes-topk, scenes-test;" in str(caught.value)
    assert "--examples" in str(caught.value)
    for name in FOLDERS:
        (tmp_path / name).mkdir(exist_ok=True)
    assert find_examples(tmp_path) == tmp_path


def test_a_folder_that_does_not_exist_lacks_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing scenes-thresholds.*digits-test"):
        find_examples(tmp_path / "none")


@pytest.mark.parametrize(
    ("adaptive", "sister", "says"),
    [
        (make_config(), make_config(), "scenes-thresholds: got a checkpoint without `thresholds`"),
        (SCENE_CONFIG, SCENE_CONFIG, "scenes-topk: got a checkpoint that owns thresholds"),
        (SCENE_CONFIG, make_config(routing="token_choice"), "scenes-topk: got 'token_choice'"),
        (
            SCENE_CONFIG,
            make_config(num_classes=7, labels=None),
            "scenes-topk: got num_classes 7, expected 10",
        ),
    ],
)
def test_other_models_are_refused(adaptive: Config, sister: Config, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_scene_models(adaptive, sister)
    assert says in str(caught.value)


def table(folder: Path, header: str, rows: list[str]) -> None:
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")


def test_objects_follow_the_order_of_the_table(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "pictures", 3)
    table(folder, "objects,file,label", ["9,./002.png,1", "1,000.png,2", "0,001.png,0"])
    assert read_objects(open_images(folder, SCENE_CONFIG)).tolist() == [9, 1, 0]
    some = open_images(folder, SCENE_CONFIG, limit=2)
    assert len(read_objects(some)) == 2


@pytest.mark.parametrize("wrong", ["", "-1", "two", "1.5", "²", "9" * 30])
def test_a_number_that_is_none_is_named(tmp_path: Path, wrong: str) -> None:
    folder = save_pictures(tmp_path / "pictures", 3)
    table(folder, "file,label,objects", ["000.png,1,2", f"001.png,1,{wrong}", "002.png,2,1"])
    with pytest.raises(ImageError) as caught:
        read_objects(open_images(folder, SCENE_CONFIG))
    assert f"001.png: got {wrong!r}" in str(caught.value) and "000.png" not in str(caught.value)


def test_a_table_without_the_column_or_no_table(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "pictures", 3, labelled=True)
    with pytest.raises(ImageError, match="expected the column 'objects'"):
        read_objects(open_images(folder, SCENE_CONFIG))
    (folder / "labels.csv").unlink()
    with pytest.raises(ImageError, match=r"labels\.csv is missing"):
        read_objects(open_images(folder, SCENE_CONFIG))
