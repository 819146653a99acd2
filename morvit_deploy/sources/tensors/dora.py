"""DoRA as trained by Edge-RecViT: a magnitude per output, a direction, and a low-rank update of the direction."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.tensors.keymap import Combine, Parts

SLOTS = ("base", "dora_A", "dora_B", "rho", "W_hat_init")
SAME = 1e-4  # × max |weight|: float32 round-off of a product of rank r, far below the effect of training


def merged(parts: Parts, alpha: float) -> Tensor:
    """Return rho ⊙ (Ŵ + (α/r)·B·A) for dora_A (r, in), dora_B (out, r), rho (out), W_hat_init (out, in).

    The base weight is not an input, but it verifies the file: it must be the original weight, whose direction is Ŵ,
    or the merged weight. Raises CheckpointError otherwise, or if shapes do not match.
    """
    base, a, b, rho, direction = (parts[slot].double() for slot in SLOTS)
    rank = a.shape[0]
    fits = b.shape == (base.shape[0], rank) and a.shape[1:] == base.shape[1:] and rho.shape == base.shape[:1]
    if base.ndim != 2 or not fits or direction.shape != base.shape:
        shapes = ", ".join(f"{slot} {list(parts[slot].shape)}" for slot in SLOTS)
        raise CheckpointError(f"half-merged DoRA: shapes do not match: {shapes}")
    weight = rho[:, None] * (direction + (alpha / rank) * (b @ a))
    untouched = base / base.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    from_start, from_merge = _apart(untouched, direction), _apart(base, weight)
    if min(from_start, from_merge) > SAME:
        raise CheckpointError(
            "half-merged DoRA: base_layer.weight is neither the original weight with direction W_hat_init (max |Δ| "
            f"{from_start:.3g} relative to the largest value) nor the weight merged with --dora-alpha "
            f"{alpha:g} (max |Δ| {from_merge:.3g}); give the alpha of training, or save it before or after merging"
        )
    return weight.float()


def merging(alpha: float | None) -> Combine:
    """Return a function that merges with `alpha`, or one that returns a tensor of that shape if it is unknown."""
    return lambda parts: merged(parts, alpha) if alpha is not None else parts["base"]


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
