"""`preprocess` from presets, files, timm's pretrained_cfg and Transformers' processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from third_party import third_party

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.config import Preprocess
from morvit_deploy.sources.settings.preprocessing import (
    PRESETS,
    chosen,
    of_timm,
    of_transformers,
    preset,
    unsupported_of_transformers,
)

IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
OURS = {"mean": IMAGENET[0], "std": IMAGENET[1], "resize": 40, "interpolation": "bilinear"}
CFG = {"mean": IMAGENET[0], "std": IMAGENET[1], "crop_pct": 0.9, "interpolation": "bicubic"}
PROCESSOR = {
    "do_resize": True, "size": {"shortest_edge": 256}, "resample": 3, "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224}, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
    "image_mean": IMAGENET[0], "image_std": IMAGENET[1],
}  # fmt: skip  # a block of fields


@pytest.mark.parametrize(("name", "resize"), [("imagenet", 256), ("inception", 248), ("cifar10", 256)])
def test_presets_at_the_published_size(name: str, resize: int) -> None:
    found = chosen(name, 224)
    assert found == preset(name, 224) and found.resize == resize
    assert (found.mean, found.std) == PRESETS[name][:2]


def test_a_file_and_an_object(tmp_path: Path) -> None:
    path = tmp_path / "my preprocess.json"
    path.write_text(json.dumps(OURS))
    assert chosen(path, 32).model_dump(mode="json") == OURS
    assert chosen(str(path), 32) == chosen(chosen(path, 32), 32)


def test_a_misspelt_preset() -> None:
    with pytest.raises(
        ConfigError, match="got imagnet, expected imagenet, inception, torchvision, cifar10, or a JSON file"
    ):
        chosen("imagnet", 224)


FILES = {
    "no JSON": ("mean: 0.5", "is not a JSON file"),
    "no object": ("[0.5]", r"is not a preprocess object[\s\S]*got \[0.5\]"),
    "two means": (json.dumps(OURS | {"mean": [0.5, 0.5]}), "mean"),
    "std zero": (json.dumps(OURS | {"std": [0, 1, 1]}), "std.0: got 0"),
    "no resize": (json.dumps({k: v for k, v in OURS.items() if k != "resize"}), "resize: missing"),
    "unknown": (json.dumps(OURS | {"crop": 1}), "crop: unknown field"),
    "interpolation": (json.dumps(OURS | {"interpolation": "area"}), "interpolation: got 'area'"),
    "infinite": (json.dumps(OURS | {"mean": [float("nan")] * 3}), r"mean.0: got NaN, expected a finite number"),
    "not UTF-8": ("\udcff", "is not a JSON file"),
}  # fmt: skip  # a line each


@pytest.mark.parametrize(("text", "match"), FILES.values(), ids=FILES)
def test_a_file_that_is_none(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=match) as caught:
        chosen(path, 224)
    assert "--preprocess" in str(caught.value) and "p.json" in str(caught.value)
    with pytest.raises(ConfigError, match="expected imagenet"):
        chosen(tmp_path, 224)


@pytest.mark.parametrize("crop", [0.875, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [224, 384])
def test_what_timm_does_with_its_configuration(size: int, interpolation: str, crop: float) -> None:
    data = third_party("timm").data
    cfg = CFG | {"crop_pct": crop, "interpolation": interpolation, "input_size": [3, size, size]}
    transform = data.create_transform(**data.resolve_data_config(pretrained_cfg=cfg))
    by_kind = {type(step).__name__: step for step in transform.transforms}
    found = of_timm({"pretrained_cfg": cfg}, size)
    assert found is not None
    assert found.resize == by_kind["Resize"].size and tuple(by_kind["CenterCrop"].size) == (size, size)
    assert found.interpolation == by_kind["Resize"].interpolation.value
    assert found.mean == pytest.approx(by_kind["Normalize"].mean.tolist())
    assert found.std == pytest.approx(by_kind["Normalize"].std.tolist())
    assert of_timm(cfg, size) == found, "pretrained_cfg may be the file itself"


UNTOLD = {
    "nothing": {},
    "squash": CFG | {"crop_mode": "squash"},
    "border": CFG | {"crop_mode": "border"},
    "grey": CFG | {"mean": [0.5], "std": [0.5]},
    "random": CFG | {"interpolation": "random"},
    "no mean": {k: v for k, v in CFG.items() if k != "mean"},
    "enlarged crop": CFG | {"crop_pct": 1.2},
    "text": CFG | {"crop_pct": "0.9"},
}


@pytest.mark.parametrize("cfg", UNTOLD.values(), ids=UNTOLD)
def test_timm_configurations_that_say_nothing_we_can_do(cfg: dict[str, Any]) -> None:
    assert of_timm({"pretrained_cfg": cfg}, 224) is None


def test_a_pretrained_cfg_that_is_no_object() -> None:
    assert of_timm({"pretrained_cfg": "augreg"}, 224) is None and of_timm(None, 224) is None


def test_a_processor_that_keeps_the_aspect_ratio() -> None:
    found = of_transformers(PROCESSOR, 224)
    wanted = Preprocess(mean=tuple(IMAGENET[0]), std=tuple(IMAGENET[1]), resize=256, interpolation="bicubic")
    assert found == wanted
    assert of_transformers(PROCESSOR | {"crop_size": 224}, 224) == wanted
    plain = {k: v for k, v in PROCESSOR.items() if k not in ("do_rescale", "rescale_factor")}
    assert of_transformers(plain, 224) == wanted, "older files do not say what always was"
    unresized = of_transformers(PROCESSOR | {"do_resize": False, "resample": None}, 224)
    assert unresized is not None and unresized.resize is None


def test_processors_that_transformers_writes(tmp_path: Path) -> None:
    """Clip's keeps the aspect ratio; ViT's squashes the picture, which config.json cannot say."""
    transformers = third_party("transformers")
    transformers.CLIPImageProcessor().save_pretrained(tmp_path / "clip")
    clip = json.loads((tmp_path / "clip" / "preprocessor_config.json").read_text())
    found = of_transformers(clip, 224)
    assert found is not None and (found.resize, found.interpolation) == (224, "bicubic")
    transformers.ViTImageProcessor().save_pretrained(tmp_path / "vit")
    squashing = json.loads((tmp_path / "vit" / "preprocessor_config.json").read_text())
    assert of_transformers(squashing, 224) is None
    told = unsupported_of_transformers(squashing, 224)
    assert "without keeping the aspect ratio" in told
    offered = json.loads(
        told[told.index("JSON file of") + len("JSON file of") : told.index(" is equivalent")]
    )
    assert offered["resize"] == 224 and offered["interpolation"] == "bilinear"
    Preprocess.model_validate_json(json.dumps(offered))


UNLIKE = {
    "not normalised": ({"do_normalize": False}, "do_normalize is not true"),
    "not rescaled": ({"do_rescale": False}, "not divided by 255"),
    "rescaled otherwise": ({"rescale_factor": 1 / 127.5}, "not divided by 255"),
    "not cropped": ({"do_center_crop": False}, "does not crop the centre to 224"),
    "cropped otherwise": ({"crop_size": {"height": 200, "width": 200}}, "does not crop the centre to 224"),
    "cropped oblong": ({"crop_size": {"height": 224, "width": 200}}, "does not crop the centre"),
    "squashed": ({"size": {"height": 224, "width": 224}}, '"resize":224,"interpolation":"bicubic"'),
    "squashed oblong": ({"size": {"height": 224, "width": 200}}, "without keeping the aspect ratio"),
    "squashed, old": ({"size": 224}, "without keeping the aspect ratio"),
    "resampled otherwise": ({"resample": 9}, "resample is 9, expected one of Pillow's"),
    "grey": ({"image_mean": [0.5], "image_std": [0.5]}, "not valid values for RGB"),
    "no mean": ({"image_mean": None}, "not valid values for RGB"),
}


@pytest.mark.parametrize(("change", "told"), UNLIKE.values(), ids=UNLIKE)
def test_processors_that_config_cannot_say(change: dict[str, Any], told: str) -> None:
    assert of_transformers(PROCESSOR | change, 224) is None
    assert told in unsupported_of_transformers(PROCESSOR | change, 224)


def test_no_processor_says_nothing() -> None:
    assert of_transformers(None, 224) is None and unsupported_of_transformers(None, 224) == ""
