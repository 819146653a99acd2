"""`preprocess` from presets, files, timm's pretrained_cfg and Transformers' processors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from third_party import third_party

from morvit_deploy.bundle.pixels import prepare
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
    "squash without a crop": {k: v for k, v in CFG.items() if k != "crop_pct"} | {"crop_mode": "squash"},
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
    wanted = Preprocess(
        mean=tuple(IMAGENET[0]),
        std=tuple(IMAGENET[1]),
        resize=256,
        interpolation="bicubic",
        crop_rounding="down",
    )
    assert found == wanted
    assert of_transformers(PROCESSOR | {"crop_size": 224}, 224) == wanted
    plain = {k: v for k, v in PROCESSOR.items() if k not in ("do_rescale", "rescale_factor")}
    assert of_transformers(plain, 224) == wanted, "older files do not say what always was"
    unresized = of_transformers(PROCESSOR | {"do_resize": False, "resample": None}, 224)
    assert unresized is not None and unresized.resize is None


def test_processors_that_transformers_writes(tmp_path: Path) -> None:
    """Clip's keeps the aspect ratio; ViT's and DeiT's squash the picture, DeiT's crops it then."""
    written = {"CLIP": (224, "bicubic", "down"), "ViT": ((224, 224), "bilinear", "even"),
               "DeiT": ((256, 256), "bicubic", "down")}  # fmt: skip  # a row each
    for kind, (resize, interpolation, rounding) in written.items():
        getattr(third_party("transformers"), f"{kind}ImageProcessor")().save_pretrained(tmp_path / kind)
        found = of_transformers(json.loads((tmp_path / kind / "preprocessor_config.json").read_text()), 224)
        assert found is not None, kind
        assert (found.resize, found.interpolation, found.crop_rounding) == (resize, interpolation, rounding)


def test_a_size_of_one_number_is_a_square_for_vits_processors() -> None:
    """As the files of older versions say it; other processors take it for the shorter side, or not at all."""
    old = PROCESSOR | {"size": 256, "crop_size": 224}
    for kind in (
        {"feature_extractor_type": "DeiTFeatureExtractor"},
        {"image_processor_type": "ViTImageProcessor"},
    ):
        found = of_transformers(old | kind, 224)
        assert found is not None and found.resize == (256, 256)
    assert of_transformers(old | {"feature_extractor_type": "ConvNextFeatureExtractor"}, 224) is None


SIDES = [(37, 53), (40, 40), (64, 41), (39, 35), (90, 61)]  # of pictures; among them margins of 3 modulo 4
PROCESSORS = {
    "vit": ("ViT", {"size": {"height": 32, "width": 32}}),
    "vit bicubic": ("ViT", {"size": {"height": 32, "width": 32}, "resample": 3}),
    "deit": ("DeiT", {"size": {"height": 35, "width": 39}, "crop_size": {"height": 32, "width": 32}}),
    "clip": ("CLIP", {"size": {"shortest_edge": 35}, "crop_size": {"height": 32, "width": 32}}),
    "clip unresized": ("CLIP", {"do_resize": False, "crop_size": {"height": 32, "width": 32}}),
}


@pytest.mark.parametrize(("kind", "options"), PROCESSORS.values(), ids=PROCESSORS)
def test_pixels_are_those_of_transformers_own_processors(
    kind: str, options: dict[str, Any], tmp_path: Path
) -> None:
    processor = getattr(third_party("transformers"), f"{kind}ImageProcessorPil")(**options)
    processor.save_pretrained(tmp_path)
    found = of_transformers(json.loads((tmp_path / "preprocessor_config.json").read_text()), 32)
    assert found is not None
    for picture in pictures():
        theirs = processor(picture, do_rescale=False, do_normalize=False, return_tensors="np")[
            "pixel_values"
        ][0]
        assert np.array_equal(theirs.transpose(1, 2, 0), np.asarray(prepare(picture, found, 32))), (
            picture.size
        )


@pytest.mark.parametrize("crop", [0.875, 0.9, 0.96, 1.0])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_pixels_are_those_of_timms_own_transforms(mode: str, crop: float) -> None:
    data = third_party("timm").data
    cfg = CFG | {"crop_pct": crop, "crop_mode": mode, "input_size": [3, 32, 32]}
    steps = data.create_transform(**data.resolve_data_config(pretrained_cfg=cfg)).transforms
    found = of_timm({"pretrained_cfg": cfg}, 32)
    assert found is not None and isinstance(found.resize, tuple) == (mode == "squash")
    for picture in pictures():
        theirs = steps[1](steps[0](picture))  # resize and crop; then come the tensors
        assert np.array_equal(np.asarray(theirs), np.asarray(prepare(picture, found, 32))), picture.size


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)) for side in SIDES]


UNLIKE = {
    "not normalised": ({"do_normalize": False}, "do_normalize is not true"),
    "not rescaled": ({"do_rescale": False}, "not divided by 255"),
    "rescaled otherwise": ({"rescale_factor": 1 / 127.5}, "not divided by 255"),
    "not cropped": ({"do_center_crop": False}, "does not crop the center to 224"),
    "cropped otherwise": ({"crop_size": {"height": 200, "width": 200}}, "does not crop the center to 224"),
    "cropped oblong": ({"crop_size": {"height": 224, "width": 200}}, "does not crop the center"),
    "squashed too small": ({"size": {"height": 224, "width": 200}}, "expected at least the image size 224"),
    "shorter side too small": ({"size": {"shortest_edge": 200}}, "expected at least the image size 224"),
    "one number": ({"size": 224}, "it resizes to 224, expected a shortest_edge, or a height and a width"),
    "bounded": ({"size": {"shortest_edge": 256, "longest_edge": 512}}, "expected a shortest_edge, or"),
    "no size": ({"size": None}, "it resizes to None"),
    "text as size": ({"size": {"height": "224", "width": "224"}}, "expected a shortest_edge, or"),
    "true as size": ({"size": {"shortest_edge": True}}, "expected a shortest_edge, or"),
    "rescaled by text": ({"rescale_factor": "1/255"}, "not divided by 255"),
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
