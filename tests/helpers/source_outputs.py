"""Files of `--reference`: pictures, and logits that a model returns for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tiny_models import normalised, random_pixels

from morvit_deploy.model.reference import MoRViT


def outputs_of(model: MoRViT, count: int = 6, seed: int = 0) -> dict[str, Any]:
    """`images` and `logits`, computed in float32."""
    images = random_pixels(model.config, count, seed)
    return {"images": images, "logits": model(normalised(model.config, images).float()).logits.numpy()}


def as_inputs(model: MoRViT, outputs: dict[str, Any]) -> dict[str, Any]:
    """The same with `inputs` instead of `images`."""
    inputs = normalised(model.config, outputs["images"]).float().numpy()
    return {"inputs": inputs, "logits": outputs["logits"]}


def written(path: Path, **arrays: Any) -> Path:
    """Save arrays; those of objects are pickled, as numpy does."""
    np.savez(path, **arrays)
    return path
