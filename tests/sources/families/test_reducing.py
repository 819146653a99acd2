"""EViT and DynamicViT: what their files hold, what is required, and how many tokens go on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from foreign_checkpoints import DIM, drawn, said, saved, vit

from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.sources.conversion import Converted, read_model
from morvit_deploy.sources.families.reducing import kept_by_dynamic_vit, kept_by_evit
from morvit_deploy.sources.settings.given import Given

EVIT: dict[str, Any] = {"base_keep_rate": 0.7, "drop_loc": "(1, 3)", "fuse_token": False}
HALF, QUARTER = DIM // 2, DIM // 4


def predictors(count: int) -> dict[str, torch.Tensor]:
    """DynamicViT's predictors by its names."""
    shapes: dict[str, tuple[int, ...]] = {}
    for r in range(count):
        name = f"score_predictor.{r}"
        shapes |= {f"{name}.in_conv.0.weight": (DIM,), f"{name}.in_conv.0.bias": (DIM,)}
        for layer, (wide, narrow) in {
            "in_conv.1": (DIM, DIM), "out_conv.0": (DIM, HALF), "out_conv.2": (HALF, QUARTER),
            "out_conv.4": (QUARTER, 2),
        }.items():  # fmt: skip  # a block of shapes
            shapes |= {f"{name}.{layer}.weight": (narrow, wide), f"{name}.{layer}.bias": (narrow,)}
    return drawn(shapes, seed=7)


def evit(folder: Path, given: Given, **arguments: Any) -> Converted:
    held = argparse.Namespace(**{name: v for name, v in (EVIT | arguments).items() if v is not None})
    return read_model(saved({"model": vit("abcde"), "args": held}, folder / "m.pth"), given)


def dynamic_vit(folder: Path, given: Given, steps: int = 2, **arguments: Any) -> Converted:
    content = {"model": vit("abcde") | predictors(steps), "args": argparse.Namespace(**arguments)}
    return read_model(saved(content, folder / "m.pth"), given)


@pytest.mark.parametrize(
    ("rate", "fuse", "kept"),
    [
        (0.7, True, (138, 98, 70)),
        (0.7, False, (138, 97, 68)),
        (0.5, True, (98, 50, 26)),
        (0.5, False, (98, 49, 25)),
    ],
)
def test_counts_of_evit_are_the_published_ones(rate: float, fuse: bool, kept: tuple[int, ...]) -> None:
    assert kept_by_evit(rate, 196, 3, fuse=fuse) == kept


@pytest.mark.parametrize(("rate", "kept"), [(0.7, (137, 96, 67)), (0.5, (98, 49, 24))])
def test_counts_of_dynamic_vit_are_the_published_ones(rate: float, kept: tuple[int, ...]) -> None:
    assert kept_by_dynamic_vit(rate, 196, 3) == kept


def test_evit_is_read_from_its_arguments(tmp_path: Path) -> None:
    converted = evit(tmp_path, said())
    config = converted.model.config
    assert (converted.family, config.format, config.routing) == ("evit", "morvit/2", "attentive")
    assert config.capacity == (12, 9) and config.reduction is not None and not config.reduction.fuse
    assert converted.settled["keep_rate"].origin == "args.base_keep_rate in the file"
    assert "args.base_keep_rate 0.7" in converted.because[0]


@pytest.mark.parametrize(
    ("absent", "option"),
    [("base_keep_rate", "--keep-rate"), ("drop_loc", "--drop-layers"), ("fuse_token", "--dropped")],
)
def test_what_evits_file_lacks_is_required(tmp_path: Path, absent: str, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        evit(tmp_path, said(family="evit"), **{absent: None})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"drop_loc": "()"}, r"got '\(\)' \(args.drop_loc in the file\), expected one or more layers"),
        ({"drop_loc": "(-1,)"}, r"got '\(-1,\)'"),
        ({"drop_loc": "print(8)"}, r"got 'print\(8\)'"),
        ({"drop_loc": 1.5}, "got '1.5'"),
        ({"fuse_token": "maybe"}, r"got 'maybe' \(args.fuse_token in the file\), expected true or false"),
    ],
    ids=str,
)
def test_arguments_that_are_no_layers_or_no_choice(
    tmp_path: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        evit(tmp_path, said(), **arguments)


@pytest.mark.parametrize("listed", ["(1, 3)", "1,3", "[1, 3]", "(1,3,)", [1, 3], (1, 3)], ids=str)
def test_layers_are_read_from_lists_and_their_text(tmp_path: Path, listed: object) -> None:
    reduction = evit(tmp_path, said(), drop_loc=listed).model.config.reduction
    assert reduction is not None and reduction.layers == (1, 3)


def test_an_evit_without_arguments_is_chosen_by_its_family(tmp_path: Path) -> None:
    path = saved(vit("abcde"), tmp_path / "m.pth")
    given = said(family="evit", keep_rate=0.5, drop_layers=[2], dropped="fused")
    config = read_model(path, given).model.config
    assert config.capacity == (8,) and config.reduction is not None
    assert config.reduction.layers == (2,) and config.reduction.fuse


def test_dynamic_vit_is_told_by_its_predictors_and_its_rate_is_required(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--keep-rate") as caught:
        dynamic_vit(tmp_path, said())
    assert "--drop-layers" in str(caught.value) and "is a DynamicViT" in str(caught.value)
    converted = dynamic_vit(tmp_path, said(drop_layers=(1, 3)), base_rate=0.7)
    config = converted.model.config
    assert (converted.family, config.routing, config.capacity) == ("dynamic_vit", "predicted", (11, 7))
    row = next(row for row in converted.rows if row.source == "score_predictor.1.out_conv.4.weight")
    assert row.target == "routers.1.layers.2.weight"


def test_a_layer_for_each_predictor(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="got 2 layers, expected one for each of 3 predictors"):
        dynamic_vit(tmp_path, said(drop_layers=(1, 3)), steps=3, base_rate=0.7)


def test_a_rate_that_empties_a_step(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"leaves 1, 0 patch tokens .* none after layer 3"):
        dynamic_vit(tmp_path, said(drop_layers=(1, 3)), base_rate=0.1)


@pytest.mark.parametrize("rate", [1.5, 0.0, "0.7"])
def test_a_rate_that_is_none(tmp_path: Path, rate: Any) -> None:
    with pytest.raises(CheckpointError, match="expected a number above 0 and at most 1"):
        dynamic_vit(tmp_path, said(drop_layers=(1, 3)), base_rate=rate)


def test_a_last_layer_that_drops(tmp_path: Path) -> None:
    """What leaves in EViT's last layer would not change its logits; DynamicViT selects before the layer."""
    with pytest.raises(
        ConfigError, match=r"reduction\.layers: got .*1, 4.*, expected ascending numbers from 0 to 3"
    ):
        evit(tmp_path, said(), drop_loc="(1, 4)")
    assert dynamic_vit(tmp_path, said(drop_layers=(1, 4)), base_rate=0.7).model.config.num_steps == 2


def test_layers_that_are_copies(tmp_path: Path) -> None:
    held = argparse.Namespace(**EVIT)
    path = saved({"model": vit("aaaa"), "args": held}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match="a model that drops tokens has layers of its own"):
        read_model(path, said())
