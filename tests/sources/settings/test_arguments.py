"""Arguments of training in a file: those that change logits are used or refused, the others are listed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest
from foreign_checkpoints import contents, said, saved, vit

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.families.timm_vit import TimmViT
from morvit_deploy.sources.settings.arguments import Arguments, arguments_in
from morvit_deploy.sources.settings.given import Questions

EVIT = {
    "model": "deit_small_patch16_shrink_base",
    "base_keep_rate": 0.7,
    "drop_loc": "(1, 3)",
    "fuse_token": True,
}
REDUCED: dict[str, tuple[dict[str, Any], str]] = {
    "A-ViT": ({"ponder_token_scale": 5e-4, "gate_scale": 10.0}, "A-ViT (args.ponder_token_scale 0.0005"),
    "A-ViT by its name": ({"model": "avit_tiny_patch16_224"}, "A-ViT (model"),
    "ToMe": ({"prop_attn": True, "tome_r": 8}, "ToMe (args.tome_r 8"),
    "ATS": ({"ats_blocks": [3, 4, 5]}, "ATS (args.ats_blocks"),
    "Evo-ViT": ({"model": "evo_deit_small_patch16_224_prune"}, "Evo-ViT (model"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("arguments", "why"), REDUCED.values(), ids=REDUCED)
def test_reduced_tokens_are_refused(tmp_path: Path, arguments: dict[str, Any], why: str) -> None:
    path = saved({"model": vit(), "args": argparse.Namespace(**arguments)}, tmp_path / "m.pth")
    with pytest.raises(CheckpointError) as caught:
        read_model(path, said())
    assert f"was trained as {why}" in str(caught.value)
    assert "torch.save(model.state_dict(), PATH)" in str(caught.value)


@pytest.mark.parametrize(
    "held",
    [
        {"args": EVIT},
        {"hyper_parameters": {"net": EVIT}},
        {"cfg": {"model": {"reduction": argparse.Namespace(**EVIT)}}},
        {"config": EVIT, "epoch": 3},
    ],
    ids=["dictionary", "Lightning", "nested", "config"],
)
def test_wherever_they_are(tmp_path: Path, held: dict[str, Any]) -> None:
    path = saved({"state_dict": vit("abcde"), **held}, tmp_path / "m.pth")
    config = read_model(path, said()).model.config
    assert config.reduction is not None and config.reduction.layers == (1, 3) and config.reduction.fuse
    assert config.capacity == (12, 10)  # ceil(0.7 · 16), then ceil(0.7 · 13)
    with pytest.raises(CheckpointError, match=r"was trained as EViT .* because of --family; leave that out"):
        read_model(path, said(family="timm_vit"))


def test_evit_that_keeps_every_token_is_a_plain_vit(tmp_path: Path) -> None:
    arguments = argparse.Namespace(**EVIT | {"base_keep_rate": 1.0})
    path = saved({"model": vit(), "args": arguments}, tmp_path / "m.pth")
    converted = read_model(path, said())
    assert "args.base_keep_rate" in converted.contents.arguments.used
    assert converted.as_dict()["dropped"]["args"] == "arguments of the training script"


def test_plain_training_arguments_do_not_reduce() -> None:
    plain = {"model": "deit_tiny_patch16_224", "drop": 0.0, "drop_path": 0.1, "lr": 5e-4, "fuse_token": False}
    assert not Arguments({"args": plain}).reduction()


POOLING: dict[str, tuple[dict[str, Any], str | None]] = {
    "MAE": ({"global_pool": True}, "mean"),
    "MAE with CLS": ({"global_pool": False, "model": "vit_base_patch16"}, "cls"),
    "timm": ({"gp": "avg"}, "mean"),
    "BEiT": ({"use_mean_pooling": True}, "mean"),
    "DeiT by its name": ({"model": "deit_small_patch16_224", "gp": None}, "cls"),
    "MAE's name alone": ({"model": "vit_base_patch16"}, None),
    "another value": ({"global_pool": "map"}, None),
    "nothing": ({"lr": 0.1}, None),
}


@pytest.mark.parametrize(("arguments", "pooling"), POOLING.values(), ids=POOLING)
def test_pooling(arguments: dict[str, Any], pooling: str | None) -> None:
    assert Arguments({"args": arguments}).pooling()[0] == pooling


def test_timm_saves_the_name_beside_its_arguments() -> None:
    entries = arguments_in({"arch": "vit_tiny_patch16_224", "args": argparse.Namespace(gp=None)})
    assert Arguments(entries).pooling() == ("cls", "the model's name 'vit_tiny_patch16_224' in the file")


@pytest.mark.parametrize("size", ["224", -1, True, [3, 224], [1, 2, 3, 4], 2.5])
def test_sizes_that_are_none(size: Any) -> None:
    found = Arguments({"args": {"img_size": size}}).image_sizes()
    assert found in ({}, {"args.img_size in the file": (3, 224)})


def test_heads_of_the_arguments_are_used_and_checked() -> None:
    held = Arguments({"args": {"num_heads": 4}})
    questions = Questions(said(num_heads=None))
    made = TimmViT().draft(contents(vit(), arguments=held), questions)
    assert made.fields["num_heads"] == 4
    questions = Questions(said())
    TimmViT().draft(contents(vit(), arguments=held), questions)
    assert questions.conflicts == [
        "--num-heads: got 2, expected 4 as in args.num_heads in the file; omit the option"
    ]
