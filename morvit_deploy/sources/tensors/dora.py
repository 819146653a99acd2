"""DoRA as Edge-RecViT trains it: a magnitude for each output, a direction, and a low-rank change of the direction."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.errors import CheckpointError
from morvit_deploy.sources.tensors.keymap import Combine, Parts

SLOTS = ("base", "dora_A", "dora_B", "rho", "W_hat_init")
SAME = 1e-4  # × max |weight|: float32 round-off of a product of rank r, far below what training changes


def merged(parts: Parts, alpha: float) -> Tensor:
    """rho ⊙ (Ŵ + (α/r)·B·A) for dora_A (r, in), dora_B (out, r), rho (out), W_hat_init (out, in); in float64.

    The base weight is not read while training, but it proves what the file is: the untouched weight that Ŵ is the
    direction of, or the merged one. CheckpointError when it is neither, or shapes do not fit.
    """
    base, a, b, rho, direction = (parts[slot].double() for slot in SLOTS)
    rank = a.shape[0]
    fits = b.shape == (base.shape[0], rank) and a.shape[1:] == base.shape[1:] and rho.shape == base.shape[:1]
    if base.ndim != 2 or not fits or direction.shape != base.shape:
        shapes = ", ".join(f"{slot} {list(parts[slot].shape)}" for slot in SLOTS)
        raise CheckpointError(f"half-merged DoRA: the parts do not fit each other: {shapes}")
    weight = rho[:, None] * (direction + (alpha / rank) * (b @ a))
    untouched = base / base.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
    from_start, from_merge = _apart(untouched, direction), _apart(base, weight)
    if min(from_start, from_merge) > SAME:
        raise CheckpointError(
            f"half-merged DoRA: base_layer.weight is neither the weight that W_hat_init is the direction of (max |Δ| "
            f"{from_start:.3g} of its largest value) nor the one merged with --dora-alpha {alpha:g} (max |Δ| "
            f"{from_merge:.3g}); give the alpha it was trained with, or save it before or after merging"
        )
    return weight.float()


def merging(alpha: float | None) -> Combine:
    """`merged` with a known alpha; while it is unknown, the shape alone."""
    return lambda parts: merged(parts, alpha) if alpha is not None else parts["base"]


def _apart(a: Tensor, b: Tensor) -> float:
    """Largest difference, in terms of the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
