"""Depth maps: what is drawn, where it is written, and what cannot be written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morvit_deploy.bundle.pixels import synthetic_images
from morvit_deploy.errors import OutputError
from morvit_deploy.inspecting.depth_maps import draw_all, draw_overview
from morvit_deploy.inspecting.depth_panels import Scale, overlay, scale_of


def _depth(images: int, side: int, steps: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, steps + 1, (images, side * side)).astype(np.uint8)


def test_a_picture_for_each_image_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "maps"
    names = [Path("a/cat.png"), Path("b/dog.jpg")]
    paths = draw_all(folder, names, synthetic_images(2, 64), _depth(2, 8, 4), 4, ["predicted 3", ""])
    assert [path.name for path in paths] == ["cat-depth.png", "dog-depth.png"]
    assert sorted(file.name for file in folder.iterdir()) == [
        "cat-depth.png",
        "dog-depth.png",
    ]  # nothing partial
    for path in paths:
        with Image.open(path) as picture:
            assert picture.width > 2 * picture.height > 600


def test_alike_stems_get_names_of_their_own(tmp_path: Path) -> None:
    names = [Path("a/x.png"), Path("b/X.png"), Path("x.jpg"), Path("x-2.png")]
    paths = draw_all(tmp_path, names, synthetic_images(4, 16), _depth(4, 2, 2), 2)
    assert len({path.name.casefold() for path in paths}) == 4


@pytest.mark.parametrize("name", ["$a_{$.png", "図の写真.png", "x" * 240 + ".png", "bad\udcff.png"])
def test_any_file_name(tmp_path: Path, name: str) -> None:
    if "\udcff" in name:
        draw_overview(tmp_path / "o.png", synthetic_images(1, 16), _depth(1, 2, 2), 2, [name], name)
    else:
        assert draw_all(tmp_path, [Path(name)], synthetic_images(1, 16), _depth(1, 2, 2), 2)[0].is_file()


@pytest.mark.parametrize("images", [1, 3, 5, 11])
def test_overview_of_any_number_of_images(tmp_path: Path, images: int) -> None:
    depth = _depth(20, 4, 12)
    path = draw_overview(tmp_path / "overview.png", synthetic_images(images, 32), depth, 12)
    with Image.open(path) as picture:
        picture.load()
        assert picture.height > 400


def test_the_same_input_draws_the_same_bytes(tmp_path: Path) -> None:
    pixels, depth = synthetic_images(1, 32), _depth(1, 4, 3)
    first, again = (draw_all(tmp_path / n, [Path("a.png")], pixels, depth, 3)[0] for n in ("1", "2"))
    assert first.read_bytes() == again.read_bytes()


def test_unwritable_place_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        draw_all(tmp_path / "file" / "maps", [Path("a.png")], synthetic_images(1, 16), _depth(1, 2, 2), 2)


def test_colour_is_of_the_patch_row_by_row() -> None:
    grey = np.full((8, 8, 3), 128, dtype=np.uint8)
    drawn = overlay(grey, np.array([0, 4, 0, 0], dtype=np.uint8), Scale(0, 4))
    red, blue = drawn[1, 6], drawn[6, 1]  # upper right, lower left
    assert red[0] > red[2]  # warm is deep
    assert blue[2] > blue[0]  # cool is shallow
    assert np.array_equal(drawn[:4, 4:], np.broadcast_to(red, (4, 4, 3)))


def test_the_picture_shows_through() -> None:
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[2:4, :, :] = 200
    drawn = overlay(pixels, np.zeros(4, dtype=np.uint8), Scale(0, 4))
    assert drawn[3, 0].sum() > 1.3 * drawn[6, 0].sum()


def test_scale_starts_where_depths_can() -> None:
    assert scale_of(np.array([[1, 5]]), 12) == Scale(1, 12)  # token_choice: at least one layer
    assert scale_of(np.array([[0, 5]]), 12) == Scale(0, 12)
    assert Scale(0, 3).shares(np.array([0, 0, 3, 1])).tolist() == [0.5, 0.25, 0, 0.25]
