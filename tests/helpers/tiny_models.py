"""Tiny configurations, random models and synthetic pictures. Everything is seeded, so that every run is the same."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from morvit_deploy.bundle.pixels import synthetic_for
from morvit_deploy.model.checkpoint import init_model
from morvit_deploy.model.config import GROWN, NEW_FIELDS, Config, parse_config
from morvit_deploy.model.plan import Bucket
from morvit_deploy.model.presets import PRESETS
from morvit_deploy.model.reference import MoRViT

EXACT = 1e-9  # both sides are float64 and equal in real arithmetic: only the order of sums differs
TINY: dict[str, Any] = {
    **PRESETS["morvit_tiny_digits"],
    "image_size": 32,  # 16 patches of 8 × 8
    "embed_dim": 16,
    "num_heads": 2,
    "mlp_dim": 24,
    "num_recursions": 3,
    "capacity": [12, 6, 3],
    "preprocess": {
        "mean": [0.4, 0.5, 0.6],
        "std": [0.3, 0.25, 0.2],
        "resize": 36,
        "interpolation": "bicubic",
    },
}
REDUCING = ("attentive", "predicted", "merged")
SCALES = {"pos_embed": 1.0, "cls_token": 1.0, "patch_embed.proj.weight": 0.1}
ROUTER_SCALE = 0.6  # router logits a few tenths apart: decisions differ from image to image, by clear margins


def make_fields(**changes: Any) -> dict[str, Any]:
    """The fields of a tiny `config.json`; what a changed `routing` or `sharing` forbids is taken out."""
    fields = json.loads(json.dumps(TINY))
    if changes.get("sharing") == "none":
        fields |= {"num_recursions": 1, "cycle_depth": 3, "capacity": [9]}
    if changes.get("routing") == "expert_choice_flat":
        fields |= {"capacity": [9, 4, 13], "gate": "hard"}
    if changes.get("routing") == "token_choice":
        fields |= {"capacity": None, "gate": "hard", "attention_scope": "all"}
    if changes.get("routing") in REDUCING:
        fields |= {
            "format": "morvit/2",
            "sharing": "none",
            "num_recursions": 1,
            "cycle_depth": 5,
            "gate": "hard",
        }
        fields |= {"router": None, "capacity": [9, 5], "reduction": {"layers": [1, 3]}}
    if changes.get("routing") == "none":
        fields |= {"capacity": None, "gate": "hard", "router": None}
    fields["format"] = GROWN if _is_new(changes) else fields["format"]
    channels = changes.get("in_channels", 3)
    if channels != 3:
        fields["preprocess"] |= {"mean": [0.5] * channels, "std": [0.25] * channels}
    router = changes.pop("router", fields["router"])
    preprocess = fields["preprocess"] | changes.pop("preprocess", {})
    fields |= changes | {"preprocess": preprocess}
    return fields | {"router": router if router is None else TINY["router"] | router}


def _is_new(changes: dict[str, Any]) -> bool:
    """Whether only morvit/2 can express the changes."""
    new = changes.keys() & {*NEW_FIELDS} or changes.get("in_channels", 3) != 3
    return (
        bool(new) or isinstance(changes.get("image_size"), list) or changes.get("head_activation") == "none"
    )


def make_config(**changes: Any) -> Config:
    """The tiny configuration with `changes`; `router` and `preprocess` need only name what differs."""
    return parse_config(json.dumps(make_fields(**changes)))


def random_model(config: Config, seed: int = 0, dtype: torch.dtype = torch.float32) -> MoRViT:
    """A model in which every weight matters: biases and norms are random too, and images route differently."""
    generator = torch.Generator().manual_seed(seed)
    model = init_model(config, seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name in SCALES:
            parameter.copy_(noise * SCALES[name])
        elif "norm" in name:
            parameter.copy_(0.3 * noise + float(name.endswith("weight")))
        elif name.startswith("routers"):
            parameter.copy_(noise * ROUTER_SCALE)
        else:
            fan_in = parameter.shape[1] if parameter.ndim > 1 else 4
            parameter.copy_(noise / fan_in**0.5)
    return model.to(dtype)


def random_pixels(config: Config, count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth pictures uint8 (count, height, width, channels)."""
    return synthetic_for(config, count, seed)


def normalised(config: Config, pixels: NDArray[np.uint8]) -> Tensor:
    """The reference's input, in float64 throughout: float64 (batch, 3, size, size)."""
    mean, std = np.asarray(config.preprocess.mean), np.asarray(config.preprocess.std)
    return torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).copy())


def own_bucket(config: Config, name: str = "own") -> Bucket:
    """The checkpoint's own schedule; every token in every step where it has none."""
    return Bucket(name=name, capacity=config.schedule or (config.num_patches,) * config.num_steps, macs=1)


def zero(module: nn.Module) -> None:
    """Set every weight of a module to zero."""
    for parameter in module.parameters():
        parameter.zero_()
