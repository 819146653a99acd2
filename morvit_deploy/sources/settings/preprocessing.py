"""The `preprocess` object of config.json, from a preset, a JSON file, or the files of timm and Transformers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import ValidationError

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.config import Preprocess
from morvit_deploy.strict_fields import explain
from morvit_deploy.strict_json import read_json

# mean, std, crop ratio (image size / resize), interpolation
PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...], float, str]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bicubic"),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 0.9, "bicubic"),
    "torchvision": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 0.875, "bilinear"),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 0.875, "bicubic"),
}
PIL = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # by Pillow's number
SQUASHES = ("ViT", "DeiT")  # processors for which a `size` of one number means a square


Size = int | tuple[int, int]  # of images in pixels: a square, or height and width


def _edges(size: Size) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def preset(name: str, size: Size) -> Preprocess:
    """Return a preset for square images: `imagenet` at 224 resizes to 256. ConfigError for others."""
    mean, std, ratio, interpolation = PRESETS[name]
    high, wide = _edges(size)
    if high != wide:
        raise ConfigError(
            f"--preprocess: got {name}, a preset for square images, and images of {high}×{wide}; expected a "
            f'JSON file with mean, std, "resize": [{high}, {wide}] or as in training, and interpolation'
        )
    made = _made(mean, std, math.floor(high / ratio), interpolation)
    assert made is not None
    return made


def chosen(given: str | Path | Preprocess, size: Size) -> Preprocess:
    """Return the value of `--preprocess`; ConfigError if it is neither a preset nor a JSON file."""
    if isinstance(given, Preprocess):
        return given
    if str(given) in PRESETS:
        return preset(str(given), size)
    path = Path(given)
    try:
        fields = read_json(path, advice="see --preprocess")
    except OSError:
        raise ConfigError(
            f"--preprocess: got {given}, expected {', '.join(PRESETS)}, or a JSON file with mean, std, resize and "
            "interpolation as in config.json"
        ) from None
    try:
        return Preprocess.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise ConfigError(f"--preprocess: {given} is not a preprocess object:\n{explain(error)}") from None


def of_timm(config: dict[str, Any] | None, size: Size, channels: int = 3) -> Preprocess | None:
    """Convert the `pretrained_cfg` of a timm config.json; None if there is none or it is not supported.

    timm crops oblong images after resizing to cover them, which has no equivalent here: of those, only `squash` is
    converted.
    """
    found = (config or {}).get("pretrained_cfg", config or {})
    if not isinstance(found, dict):
        return None
    mean, std, crop, interpolation = (found.get(k) for k in ("mean", "std", "crop_pct", "interpolation"))
    mode = found.get("crop_mode", "center")
    if mode not in ("center", "squash") or not isinstance(crop, int | float) or not 0 < crop <= 1:
        return None
    high, wide = (math.floor(edge / crop) for edge in _edges(size))  # rounded like timm's evaluation
    if mode == "center" and high != wide:
        return None
    return _made(mean, std, (high, wide) if mode == "squash" else high, interpolation, channels=channels)


def of_transformers(processor: dict[str, Any] | None, size: Size, channels: int = 3) -> Preprocess | None:
    """Convert a preprocessor_config.json; None if it is not supported."""
    if processor is None or _unlike(processor, size):
        return None
    resize = _resize(processor) if processor.get("do_resize") else None
    resample = PIL.get(processor["resample"]) if processor.get("do_resize") else "bicubic"  # unused
    rounding = "even" if resize == _edges(size) else "down"  # without a margin, nothing is rounded
    mean, std = processor.get("image_mean"), processor.get("image_std")
    return _made(mean, std, resize, resample, rounding, channels=channels)


def unsupported_of_transformers(processor: dict[str, Any] | None, size: Size, channels: int = 3) -> str:
    """Return why a preprocessor_config.json is not supported; empty if it is."""
    if processor is None:
        return ""
    numbers = f"mean {processor.get('image_mean')}, std {processor.get('image_std')}"
    colors = "RGB" if channels == 3 else f"{channels} channel(s)"
    why = _unlike(processor, size) or f"these are not valid values for {colors}"
    return f"preprocessor_config.json has {numbers}, but {why}"


def _unlike(processor: dict[str, Any], size: Size) -> str:
    """Return why a processor has no equivalent `preprocess` object; empty if it has one."""
    edges = _edges(size)
    if not processor.get("do_normalize", False):
        return "do_normalize is not true"
    factor = processor.get("rescale_factor", 1 / 255)
    if not processor.get("do_rescale", True) or not isinstance(factor, int | float):
        return "pixels are not divided by 255"
    if not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        return f"pixels are multiplied by {factor}, not divided by 255"
    resize = None
    if processor.get("do_resize"):
        resize = _resize(processor)
        if processor.get("resample") not in PIL:
            return f"resample is {processor.get('resample')!r}, expected one of Pillow's numbers {list(PIL)}"
        if resize is None:
            return f"it resizes to {processor.get('size')}, expected a shortest_edge, or a height and a width"
        reached = resize if isinstance(resize, tuple) else (resize, resize)
        if any(got < edge for got, edge in zip(reached, edges, strict=True)):
            return f"it resizes to {processor.get('size')}, expected at least the image size {_shown(size)}"
    cropped = processor.get("do_center_crop") and _sides(processor.get("crop_size")) == edges
    if not cropped and (processor.get("do_center_crop") or resize != edges):
        return f"it does not crop the center to {_shown(size)}"
    return ""


def _shown(size: Size) -> str:
    high, wide = _edges(size)
    return str(high) if high == wide else f"{high}×{wide}"


def _resize(processor: dict[str, Any]) -> int | tuple[int, int] | None:
    """Return the side or the (height, width) that a processor resizes to; None for other forms of `size`."""
    size = processor.get("size")
    if isinstance(size, dict):
        edge = size.get("shortest_edge") if size.keys() == {"shortest_edge"} else None
        return edge if _is_size(edge) else _sides(size)
    kind = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    return _sides(size) if kind.startswith(SQUASHES) else None


def _sides(size: Any) -> tuple[int, int] | None:
    """Return height and width of `{"height": h, "width": w}` or of a number; None for anything else."""
    found = size if isinstance(size, dict) else {"height": size, "width": size}
    height, width = found.get("height"), found.get("width")
    if found.keys() == {"height", "width"} and _is_size(height) and _is_size(width):
        return height, width
    return None


def _is_size(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _made(
    mean: Any, std: Any, resize: Any, interpolation: Any, crop_rounding: Any = "even", *, channels: int = 3
) -> Preprocess | None:
    """Return a preprocess object; None if its values are not valid."""
    if not isinstance(mean, list | tuple) or not isinstance(std, list | tuple) or len(mean) != channels:
        return None
    try:
        return Preprocess(
            mean=tuple(mean),
            std=tuple(std),
            resize=resize,
            interpolation=interpolation,
            crop_rounding=crop_rounding,
        )
    except ValidationError:
        return None
