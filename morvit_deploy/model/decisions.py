"""Routing decisions as pure tensor functions: which tokens continue, and by what margin.

z is a router logit. Selection uses z and not the score g = α·act(z): the activation is monotone, and z does not
saturate in low precision.
"""

from __future__ import annotations

import torch
from torch import Tensor

SCORE_ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}


def score(z: Tensor, activation: str, alpha: float) -> Tensor:
    """Return g = α·act(z), with the shape of z (paper §3.2)."""
    return alpha * SCORE_ACTIVATIONS[activation](z)


def top_k(z: Tensor, k: int) -> Tensor:
    """Return the positions of the k highest values of z (n,), in ascending order; ties go to the lower position.

    The paper selects the β-percentile of n tokens; n and β determine k.
    """
    ranked = torch.sort(z, dim=-1, descending=True, stable=True).indices
    return ranked[:k].sort().values


def at_least(z: Tensor, threshold: float) -> Tensor:
    """Return the positions where z (n,) reaches the threshold, in ascending order (paper §5.3)."""
    return torch.nonzero(z >= threshold)[:, 0]


def first_argmax(z: Tensor) -> Tensor:
    """Return the index of the highest value along the last axis; on a tie, the lowest index."""
    return torch.sort(z, dim=-1, descending=True, stable=True).indices[..., 0]


def top_k_margin(z: Tensor, k: int) -> float:
    """Return the lowest kept value of z minus the highest dropped value; inf if none is dropped."""
    if k == 0 or k >= z.shape[-1]:
        return float("inf")
    ranked = torch.sort(z, descending=True).values
    return (ranked[k - 1] - ranked[k]).item()


def threshold_margin(z: Tensor, threshold: float) -> float:
    """Return the smallest distance of z (n,) to the threshold; inf if z is empty."""
    return (z - threshold).abs().min().item() if len(z) else float("inf")


def argmax_margin(z: Tensor) -> float:
    """Return the smallest difference between the two highest values of a row of z (n, depths); inf for one depth."""
    if z.shape[-1] == 1 or z.shape[0] == 0:
        return float("inf")
    best = torch.topk(z, 2, dim=-1).values
    return (best[..., 0] - best[..., 1]).min().item()
