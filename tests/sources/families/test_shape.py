"""Position embeddings fit several shapes of images: the shape is read from the files, or asked for."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from foreign_checkpoints import DIM, SIZE, contents, drawn, said, saved, vit

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.model.config import Preprocess
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.families.shape import Reading, Rows, settle_shape
from morvit_deploy.sources.families.timm_vit import TimmViT
from morvit_deploy.sources.settings.given import Given, Questions

PATCH = 8


def settled(count: int, special: int = 1, stored: Mapping[str, Any] | None = None, **given: Any) -> Reading:
    """The reading of `count` rows with patches; every question must have its answer."""
    questions = Questions(Given(**given))
    rows = Rows(count, PATCH, special, stride=given.get("patch_stride"))
    reading = settle_shape(rows, questions, stored or {})
    questions.close(Path("model.pth"), "a ViT")
    return reading


def refused(count: int, special: int = 1, stored: Mapping[str, Any] | None = None, **given: Any) -> str:
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        settled(count, special, stored, **given)
    return str(caught.value)


def test_seventeen_rows_are_no_square_by_themselves() -> None:
    message = refused(17)
    assert "32 (4×4 patches), 16x64 (2×8 patches) or another HxW" in message
    assert message.endswith("with your model's values for N: --image-size N")
    assert settled(17, image_size=32).grid == (4, 4)
    assert settled(17, image_size="32x32").size == (32, 32)


@pytest.mark.parametrize("size", ["16x64", (16, 64), [16, 64], "16×64"])
def test_oblong_images_as_given(size: Any) -> None:
    reading = settled(17, image_size=size)
    assert (reading.size, reading.grid, reading.stride) == ((16, 64), (2, 8), 8)


def test_oblong_images_that_a_file_states() -> None:
    assert settled(17, stored={"config.json": (64, 16)}).grid == (8, 2)
    assert settled(25, stored={"args.input_size": (32, 48)}).grid == (4, 6)


def test_patches_without_cls() -> None:
    assert settled(16, special=0, image_size=32).grid == (4, 4)
    assert settled(16, special=0, image_size="16x64").before == 0


def test_twenty_five_rows_with_and_without_cls() -> None:
    message = refused(25)
    assert "40 (5×5 patches, none for CLS)" in message and "32x48 (4×6 patches" in message
    assert settled(25, image_size=40).before == 0
    assert settled(25, image_size="32x48").grid == (4, 6)


def test_fifty_rows_side_by_side_or_overlapping() -> None:
    assert settled(50, image_size=56).grid == (7, 7)
    message = refused(50, image_size=32)  # 7×7 overlapping patches, or resampled from 56
    assert "--trained-size" in message and "56 (7×7 patches)" in message
    assert "32 (7×7 patches, one every 4 pixels)" in message
    assert settled(50, image_size=32, trained_size=56).size == (56, 56)
    assert settled(50, trained_size=32).stride == 4
    assert settled(50, stored={"config.json": (32, 32)}).stride == 4
    assert settled(50, image_size=32, patch_stride=4).grid == (7, 7)


def test_two_strides_fit_one_image_size() -> None:
    """25 rows at 32 pixels: 9 tokens and 4×4 patches side by side, or 5×5 overlapping ones."""
    message = refused(25, special=9, image_size=32)
    assert "--patch-stride" in message and "8 if image size 32 (4×4" in message
    assert "6 if image size 32 (5×5 patches, one every 6 pixels, none for CLS)" in message
    assert settled(25, special=9, image_size=32, patch_stride=8).grid == (4, 4)
    assert settled(25, special=9, image_size=32, patch_stride=6).grid == (5, 5)
    assert "--patch-stride: got 4, expected 8 or 6" in refused(25, special=9, trained_size=32, patch_stride=4)


def test_what_a_file_states_is_used() -> None:
    assert settled(17, stored={"config.json": (32, 32)}).size == (32, 32)
    assert settled(17, stored={"config.json": (32, 32)}, image_size=64).size == (32, 32), "to resample from"
    message = refused(17, stored={"config.json": (32, 32)}, trained_size="16x64")
    assert "--trained-size: got 16x64, expected 32 as in config.json" in message
    message = refused(17, stored={"config.json": (224, 224)})
    assert "224 in config.json does not fit: 17 positions fit 32" in message


def test_a_size_of_training_that_does_not_fit() -> None:
    message = refused(17, trained_size=48)
    assert "--trained-size: got 48, which does not fit: 17 positions fit 32 (4×4" in message


def test_a_published_size_is_in_the_line_to_paste() -> None:
    questions = Questions(Given())
    settle_shape(Rows(197, 16, 1), questions, {})
    assert questions.example == {"--image-size": "224"}


def test_no_square_at_all() -> None:
    message = refused(14)
    assert "16x56 (2×7 patches, none for CLS) or another HxW" in message and "--image-size N" in message


def test_a_known_stride_may_leave_a_margin() -> None:
    assert settled(3 * 5 + 1, image_size="21x33", patch_stride=6).grid == (3, 5)


@pytest.mark.parametrize(
    "size", [0, -8, "8x", "x8", "8x8x8", (8,), (8.0, 8.0), True, "0x8", 10**10, "9" * 5000]
)
def test_what_is_no_size(size: Any) -> None:
    with pytest.raises(ConfigError, match=r"--image-size: got .*expected"):
        Given(image_size=size)


def test_patches_that_are_no_squares() -> None:
    tensors = vit() | drawn({"patch_embed.proj.weight": (DIM, 3, 4, 8)}, 0)
    with pytest.raises(CheckpointError, match="patches of 4×8 pixels, expected squares"):
        TimmViT().draft(contents(tensors), Questions(said()))


def test_an_oblong_image_size_to_resample_to() -> None:
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize": [8, 16], "interpolation": "bicubic"}
    made = Preprocess(**{name: tuple(v) if isinstance(v, list) else v for name, v in preprocess.items()})
    questions = Questions(said(image_size="8x16", trained_size=SIZE, preprocess=made))
    draft = TimmViT().draft(contents(vit()), questions)
    assert draft.fields["image_size"] == [8, 16]
    assert "resampled from 4×4 to 2×4 patches" in draft.remarks[-1]
    with pytest.raises(ConfigError, match="a preset for square images, and images of 8×16"):
        TimmViT().draft(contents(vit()), Questions(said(image_size="8x16", trained_size=SIZE)))


def test_arguments_in_the_file_state_the_size(tmp_path: Path) -> None:
    arguments = argparse.Namespace(input_size=SIZE, model="deit_tiny_patch16_224", lr=1e-3)
    path = saved({"model": vit(), "args": arguments}, tmp_path / "deit.pth")
    converted = read_model(path, said(image_size=None, pooling=None))
    assert converted.settled["image_size"].origin == "args.input_size in the file"
    assert converted.settled["pooling"].value == "cls"
    data = converted.as_dict()["arguments"]
    assert data == {"used": ["args.input_size", "args.model"], "not_used": ["args.lr"]}
    assert "args.lr" in converted.report().markdown()
