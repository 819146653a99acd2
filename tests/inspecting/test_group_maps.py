"""Pictures of merged tokens: patches of one token have one color, and lines are between tokens only."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from merged_models import merged_config
from PIL import Image
from tiny_models import random_model, random_pixels

import morvit_deploy as md
from morvit_deploy.files import is_own_png
from morvit_deploy.inspecting.group_maps import LINE, averaged, groups_png, outlined

GROUPS = np.array([0, 0, 2, 0], dtype=np.uint16)  # two by two patches


def test_a_token_has_the_mean_color_of_its_patches() -> None:
    pixels = np.zeros((4, 4, 3), dtype=np.uint8)
    pixels[:2, :2], pixels[:2, 2:], pixels[2:, :2], pixels[2:, 2:] = 30, 60, 200, 90
    painted = averaged(pixels, GROUPS)
    assert (painted[:2] == 60).all() and (painted[2:, :2] == 200).all() and (painted[2:, 2:] == 60).all()


def test_lines_are_between_tokens() -> None:
    drawn = outlined(np.zeros((4, 4, 3), dtype=np.uint8), GROUPS)
    white = (drawn == LINE).all(axis=-1)
    assert white.tolist() == [
        [False] * 4,
        [False] * 4,
        [True, True, True, False],
        [False, False, True, False],
    ]


def test_the_picture_shows_both(tmp_path: Path) -> None:
    content = groups_png(random_pixels(merged_config(), 1)[0], np.arange(16, dtype=np.uint16))
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.size == (2 * 480 + 12, 480)
    (tmp_path / "tokens.png").write_bytes(content)
    assert is_own_png(tmp_path / "tokens.png")


def test_inspect_draws_them(tmp_path: Path) -> None:
    config = merged_config()
    md.save_checkpoint(random_model(config), tmp_path / "merged")
    (tmp_path / "photos").mkdir()
    for number, pixels in enumerate(random_pixels(config, 3)):
        Image.fromarray(pixels).resize((40, 40)).save(tmp_path / "photos" / f"{number}.png")
    found = md.inspect(tmp_path / "merged", tmp_path / "photos", draw=2, out=tmp_path / "maps")
    assert found.survey is not None
    names = {path.name for path in (tmp_path / "maps").glob("*-tokens.png")}
    assert names == {"0-tokens.png", "1-tokens.png"} <= set(found.survey.pictures)
    with pytest.raises(md.OutputError):
        md.inspect(tmp_path / "merged", tmp_path / "photos", draw=2, out=tmp_path / "maps")
