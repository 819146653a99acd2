"""The `preprocess` object of config.json from a preset's name, a JSON file, or what timm and Transformers save."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from morvit_deploy.config import Preprocess, explain
from morvit_deploy.errors import ConfigError

# mean, std, crop ratio (image size / resize; None: no resize), interpolation
PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...], float | None, str]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bicubic"),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.9, "bicubic"),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 0.875, "bicubic"),
}
PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # PIL's numbers


def preset(name: str, image_size: int) -> Preprocess:
    """The preset called `name` for images of this size: 224 gives a resize to 256 for `imagenet`."""
    mean, std, ratio, interpolation = PRESETS[name]
    return _make(mean, std, None if ratio is None else math.floor(image_size / ratio), interpolation)


def chosen(said: str | Path | Preprocess, image_size: int) -> Preprocess:
    """What `--preprocess` says; ConfigError for a name that is neither a preset nor a JSON file."""
    if isinstance(said, Preprocess):
        return said
    if str(said) in PRESETS:
        return preset(str(said), image_size)
    path = Path(said)
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(
            f"--preprocess: got {said}, expected {', '.join(PRESETS)}, or a JSON file with mean, std, resize and "
            "interpolation as in config.json"
        ) from None
    except ValueError as error:
        raise ConfigError(f"--preprocess {said} is not a JSON file: {error}") from None
    try:
        return Preprocess.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise ConfigError(f"--preprocess {said} is not a preprocess object:\n{explain(error)}") from None


def of_timm(config: dict[str, Any] | None, image_size: int) -> Preprocess | None:
    """What `pretrained_cfg` of a timm config.json says; None when it says nothing, or something we cannot do."""
    found = (config or {}).get("pretrained_cfg", config or {})
    if not isinstance(found, dict) or not all(
        found.get(k) for k in ("mean", "std", "crop_pct", "interpolation")
    ):
        return None
    known = {*PIL.values()}
    if found.get("crop_mode", "center") != "center" or found["interpolation"] not in known:
        return None
    resize = math.floor(image_size / found["crop_pct"])  # as timm's evaluation does
    return _make(found["mean"], found["std"], resize, found["interpolation"])


def of_transformers(processor: dict[str, Any] | None, image_size: int) -> Preprocess | None:
    """What a preprocessor_config.json says, where its resize keeps the aspect ratio; None otherwise."""
    if processor is None or not processor.get("do_normalize", False):
        return None
    size, interpolation = processor.get("size"), PIL.get(processor.get("resample", -1))
    shortest = size.get("shortest_edge") if isinstance(size, dict) else None
    cropped = processor.get("do_center_crop") and _side(processor.get("crop_size")) == image_size
    if not (processor.get("do_resize") and shortest and interpolation and cropped):
        return None
    return _make(processor["image_mean"], processor["image_std"], shortest, interpolation)


def told_of_transformers(processor: dict[str, Any] | None) -> str:
    """What a preprocessor_config.json says that we cannot take as it is, in words; empty when there is none."""
    if processor is None:
        return ""
    mean, std = processor.get("image_mean"), processor.get("image_std")
    return (
        f"preprocessor_config.json says mean {mean}, std {std}, resize to {processor.get('size')} without keeping "
        "the aspect ratio, which is another picture wherever it is not square"
    )


def _side(size: Any) -> int | None:
    if isinstance(size, dict):
        return size.get("height") if size.get("height") == size.get("width") else None
    return size if isinstance(size, int) else None


def _make(mean: Any, std: Any, resize: int | None, interpolation: str) -> Preprocess:
    return Preprocess(mean=tuple(mean), std=tuple(std), resize=resize, interpolation=interpolation)  # type: ignore[arg-type]  # pydantic checks
