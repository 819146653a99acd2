"""Named architectures for `init`.

The paper states D = 768, 12 layers, 27 M parameters and 4.1 G MACs, but not R, β or the head. `morvit_b16` and
`morvit_b16_mlp_head` are two interpretations of it, not the authors' configurations.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from morvit_deploy.errors import ConfigError
from morvit_deploy.keywords import did_you_mean

if TYPE_CHECKING:
    from morvit_deploy.model.config import Config

_IMAGENET = {
    "mean": [0.485, 0.456, 0.406],
    "std": [0.229, 0.224, 0.225],
    "resize": 256,
    "interpolation": "bicubic",
}
_ROUTER = {"hidden": [], "activation": "sigmoid", "bias": True, "shared": False, "alpha": 1.0}
_MORVIT_B16: dict[str, Any] = {
    "format": "morvit/1",
    "image_size": 224,
    "patch_size": 16,
    "in_channels": 3,
    "num_classes": 1000,
    "embed_dim": 768,
    "num_heads": 12,
    "mlp_dim": 3072,
    "qkv_bias": True,
    "norm_eps": 1e-6,
    "activation": "gelu",
    "sharing": "middle_cycle",
    "cycle_depth": 1,
    "num_recursions": 10,
    "routing": "expert_choice",
    "router": _ROUTER,
    "gate": "block",
    "attention_scope": "active",
    "capacity": [80, 33, 14, 6, 2, 1, 1, 1, 1, 1],  # β = 59: k -> max(1, round(0.41 k))
    "head_hidden": [],
    "preprocess": _IMAGENET,
    "labels": None,
}
_VIT_B16 = {
    **_MORVIT_B16,
    "sharing": "none",
    "cycle_depth": 12,
    "num_recursions": 1,
    "routing": "none",
    "router": None,
    "gate": "hard",
    "capacity": None,
}
_DEIT_S16 = {**_VIT_B16, "embed_dim": 384, "num_heads": 6, "mlp_dim": 1536}
_SHORTENED = {**_DEIT_S16, "format": "morvit/2"}
_MERGING = tuple(range(11))  # layers of DeiT-S: all but the last
PRESETS: dict[str, dict[str, Any]] = {
    "morvit_b16": _MORVIT_B16,
    "morvit_b16_mlp_head": {**_MORVIT_B16, "head_hidden": [3072]},
    "morvit_b16_r5": {
        **_MORVIT_B16,
        "cycle_depth": 2,
        "num_recursions": 5,
        "capacity": [51, 13, 3, 1, 1],  # β = 74
    },
    "vit_b16": _VIT_B16,
    "deit_s16": _DEIT_S16,
    "evit_s16": {  # keep rate 0.7, fused
        **_SHORTENED,
        "routing": "attentive",
        "capacity": [138, 98, 70],
        "reduction": {"layers": [3, 6, 9], "fuse": True},
    },
    "dynamic_vit_s16": {  # keep rate 0.7
        **_SHORTENED,
        "routing": "predicted",
        "capacity": [137, 96, 67],
        "reduction": {"layers": [3, 6, 9]},
    },
    "tome_s16": {  # 13 merges at each layer
        **_SHORTENED,
        "routing": "merged",
        "capacity": [196 - 13 * (layer + 1) for layer in _MERGING],
        "reduction": {"layers": [*_MERGING], "proportional": True},
    },
    "edge_recvit_b16": {
        **_MORVIT_B16,
        "routing": "token_choice",
        "router": {**_ROUTER, "hidden": [1536, 1536], "bias": False},
        "norm_eps": 1e-12,
        "gate": "hard",
        "attention_scope": "all",
        "capacity": None,
    },
    "morvit_tiny_digits": {
        **_MORVIT_B16,
        "image_size": 64,
        "patch_size": 8,
        "num_classes": 10,
        "embed_dim": 128,
        "num_heads": 4,
        "mlp_dim": 256,
        "num_recursions": 4,
        "capacity": [40, 24, 16, 8],
        "preprocess": {
            "mean": [0.5, 0.5, 0.5],
            "std": [0.5, 0.5, 0.5],
            "resize": 64,
            "interpolation": "bicubic",
        },
        "labels": [str(digit) for digit in range(10)],
    },
}


def preset(name: str) -> Config:
    """Return the configuration called `name`; ConfigError lists the available names."""
    from morvit_deploy.model.config import parse_config  # `--help` lists the presets without pydantic

    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise ConfigError(f"got preset {name!r}, expected one of: {', '.join(PRESETS)}{hint}")
    return parse_config(json.dumps(PRESETS[name]), source=f"preset {name}")
