"""Images that are not square, not RGB, or cut into overlapping patches, and models without CLS."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import answer, run
from oracle import Oracle
from PIL import Image
from tiny_models import EXACT, make_config, normalised, own_bucket, random_model, random_pixels
from torch.utils.flop_counter import FlopCounterMode

from morvit_deploy.bundle.session import Session
from morvit_deploy.errors import ImageError
from morvit_deploy.exporters.targets import open_session
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.config import parse_config
from morvit_deploy.model.macs import schedule_macs

OBLONG: dict[str, Any] = {"image_size": [32, 64], "preprocess": {"resize": 70}}
SHAPES: dict[str, dict[str, Any]] = {
    "oblong": OBLONG,
    "oblong, depths": {**OBLONG, "routing": "token_choice"},
    "overlapping": {"patch_stride": 6, "capacity": [20, 6, 3]},
    "a margin that is not read": {
        "image_size": [34, 45], "patch_stride": 5, "preprocess": {"resize": 70}, "routing": "none",
    },
    "gray": {"in_channels": 1},
    "RGBA": {"in_channels": 4},
    "five channels": {"in_channels": 5, "patch_stride": 4, "routing": "none"},
    "no CLS": {"cls_token": False, "pooling": "mean", "routing": "none"},
    "no CLS, registers": {"cls_token": False, "pooling": "mean_norm", "routing": "none", "register_tokens": 2},
}  # fmt: skip


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_the_configuration_is_restored(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    assert parse_config(config.to_json()) == config
    assert json.loads(config.to_json())["format"] == "morvit/2"


def test_patches_are_counted() -> None:
    assert make_config(**OBLONG).grid == (4, 8)
    assert make_config(**SHAPES["a margin that is not read"]).grid == (6, 8)
    without = make_config(**SHAPES["no CLS, registers"])
    assert (without.num_patches, without.num_tokens) == (16, 18)
    assert random_model(without).pos_embed.shape == (1, 16, 16)


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_the_reference_equals_the_second_statement(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    model = random_model(config, seed=3, dtype=torch.float64)
    images = normalised(config, random_pixels(config, 2))
    outcome = model(images)
    for image, logits, depth in zip(images, outcome.logits, outcome.depth, strict=True):
        expected, steps = Oracle(model)(image.numpy())
        assert (logits - torch.from_numpy(expected)).abs().max() <= EXACT
        assert depth.tolist() == steps and len(steps) == config.num_patches


@pytest.mark.parametrize("fold", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("style", ["rows", "bsd-topk", "bc1s-onehot"])
@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_the_static_graph_equals_the_reference(changes: dict[str, Any], style: str, fold: bool) -> None:
    config = make_config(**changes)
    model, pixels = random_model(config, dtype=torch.float64), random_pixels(config, 1)
    images = normalised(config, pixels)
    expected = model(images).logits
    graph = unroll(model, own_bucket(config), Options(style=STYLES[style], fold=fold))
    raw = torch.from_numpy(pixels)
    if style != "rows":  # as an ImageType scales it
        raw = raw.permute(0, 3, 1, 2).double() / 256
    assert (graph(raw)["logits"] - expected).abs().max() <= EXACT
    graph = unroll(model, own_bucket(config), Options(input="float", style=STYLES[style], fold=fold))
    assert (graph(images)["logits"] - expected).abs().max() <= EXACT


@pytest.mark.parametrize("changes", SHAPES.values(), ids=SHAPES)
def test_macs_are_those_that_torch_counts(changes: dict[str, Any]) -> None:
    config = make_config(**changes)
    bucket = own_bucket(config)
    graph = unroll(random_model(config), bucket)
    with FlopCounterMode(display=False) as counter:
        graph(torch.from_numpy(random_pixels(config, 1)))
    assert counter.get_total_flops() == 2 * schedule_macs(config, bucket.capacity)


EXPORTS: dict[str, tuple[str, dict[str, Any]]] = {
    "oblong": ("oblong", {"batch": "dynamic", "with_depth": True}),
    "margin": ("a margin that is not read", {}),
    "gray": ("gray", {"input": "float"}),
    "five channels": ("five channels", {}),
    "no CLS": ("no CLS, registers", {"precision": "fp16"}),
    "gray, coreml": ("gray", {"target": "coreml"}),
    "oblong, coreml": ("oblong", {"target": "coreml"}),
    "RGBA, coreml": ("RGBA", {"target": "coreml", "input": "float"}),
    "RGBA, coreai": ("RGBA", {"target": "coreai"}),
    "overlapping, trt": ("overlapping", {"target": "trt"}),
}


@pytest.mark.parametrize(("shape", "options"), EXPORTS.values(), ids=EXPORTS)
def test_an_export_passes_its_proofs(
    shape: str, options: dict[str, Any], exported: Callable[..., Path]
) -> None:
    bundle = exported(make_config(**SHAPES[shape]), **options)
    found = answer("verify", bundle, "--checkpoint", bundle.parent / "checkpoint")
    assert found["passed"] and found["routing_gap"]["max_abs"] <= EXACT


def test_core_ml_takes_no_pictures_with_transparency(exported: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = exported(make_config(**SHAPES["RGBA"])).parent / "checkpoint"
    result = run("export", checkpoint, "--target", "coreml", "-o", tmp_path / "out")
    assert result.exit_code == 2 and "4 channels" in result.output and "--input float" in result.output


@pytest.mark.parametrize("shape", ["oblong", "gray", "RGBA"])
def test_predict_reads_pictures_in_the_models_shape(
    shape: str, exported: Callable[..., Path], tmp_path: Path
) -> None:
    config = make_config(**SHAPES[shape])
    bundle = exported(config, with_depth=True)
    model = random_model(config, dtype=torch.float64)
    picture = tmp_path / "a.png"
    Image.fromarray(random_pixels(make_config(image_size=96, preprocess={"resize": 96}), 1)[0]).save(picture)
    found = answer("predict", bundle, picture, "--logits", "--depth-map", tmp_path / "maps")["predictions"][0]
    with open_session(bundle) as session:
        assert isinstance(session, Session)
        pixels = session.read(picture)
    assert pixels.shape == (*config.image_shape, config.in_channels)
    expected = model(normalised(config, pixels[None])).logits[0].numpy()
    assert np.abs(np.array(found["logits"]) - expected).max() < 1e-4 * max(1, np.abs(expected).max())
    assert Path(found["depth_map"]).is_file()


def test_pixels_of_another_shape_are_refused(exported: Callable[..., Path]) -> None:
    with open_session(exported(make_config(**OBLONG))) as session:
        assert isinstance(session, Session)
        with pytest.raises(ImageError, match=r"\[1, 32, 32, 3\], expected uint8 \[n, 32, 64, 3\]"):
            session.run(np.zeros((1, 32, 32, 3), np.uint8))


def test_a_head_without_activation_has_values(exported: Callable[..., Path], tmp_path: Path) -> None:
    config = make_config(head_activation="none", num_classes=4, labels=None)
    bundle = exported(config)
    picture = tmp_path / "a.png"
    Image.fromarray(random_pixels(make_config(image_size=40, preprocess={"resize": 40}), 1)[0]).save(picture)
    (found,) = answer("predict", bundle, picture, "--logits")["predictions"]
    values = [guess["value"] for guess in found["top"]]
    assert values == sorted(found["logits"], reverse=True) and "probability" not in found["top"][0]
    assert "%" not in run("predict", bundle, picture).stdout


def test_inspect_names_the_shape(exported: Callable[..., Path]) -> None:
    checkpoint = exported(make_config(**SHAPES["no CLS, registers"])).parent / "checkpoint"
    assert "32×32 RGB, patches of 8×8: 16 patch tokens, 2 registers" in run(
        "inspect", checkpoint
    ).stdout.replace("\n", "")
