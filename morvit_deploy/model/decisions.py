"""Routing as pure tensor functions: who goes on, how far from changing its mind, how deep each token went.

z is a router logit. Selection is on z, not on the score g = α·act(z): the activation is monotone, and z does
not saturate in low precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORE_ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


def score(z: Tensor, activation: str, alpha: float) -> Tensor:
    """g = α·act(z), of the shape of z (paper §3.2)."""
    return alpha * SCORE_ACTIVATIONS[activation](z)


def top_k(z: Tensor, k: int) -> Tensor:
    """Positions of the k highest of z (n,), in ascending order; ties go to the lower position.

    The paper's β-percentile over n tokens keeps a number that is known from n and β alone: this k.
    """
    ranked = torch.sort(z, dim=-1, descending=True, stable=True).indices
    return ranked[:k].sort().values


def at_least(z: Tensor, threshold: float) -> Tensor:
    """Positions of z (n,) that reach the threshold, in ascending order (paper §5.3, static thresholding)."""
    return torch.nonzero(z >= threshold)[:, 0]


def first_argmax(z: Tensor) -> Tensor:
    """Index of the highest entry along the last axis; the lowest index on a tie."""
    return torch.sort(z, dim=-1, descending=True, stable=True).indices[..., 0]


def top_k_margin(z: Tensor, k: int) -> float:
    """How far the decision z -> top k is from another one: kept minimum less dropped maximum, inf if none drop."""
    if k == 0 or k >= z.shape[-1]:
        return float("inf")
    ranked = torch.sort(z, descending=True).values
    return (ranked[k - 1] - ranked[k]).item()


def threshold_margin(z: Tensor, threshold: float) -> float:
    """How far the nearest of z (n,) is from the threshold, inf for none."""
    return (z - threshold).abs().min().item() if len(z) else float("inf")


def argmax_margin(z: Tensor) -> float:
    """Smallest lead of the highest over the second entry along the last axis of z (n, depths); inf for one depth."""
    if z.shape[-1] == 1 or z.shape[0] == 0:
        return float("inf")
    best = torch.topk(z, 2, dim=-1).values
    return (best[..., 0] - best[..., 1]).min().item()
