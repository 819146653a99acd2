"""The training objective: cross-entropy, router z-loss and balancing loss (paper §3.3 and §3.4.2)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F
from trainable import Pass

from morvit_deploy.model.config import Config

LABEL_SMOOTHING = 0.05
Z_WEIGHT = 1e-3
BALANCE_WEIGHT = {"expert_choice": 0.05, "token_choice": 0.05}


def objective(config: Config, out: Pass, labels: Tensor) -> Tensor:
    """Scalar loss; the digit's mask has no part in it, so that routing is learnt from the labels alone."""
    task = F.cross_entropy(out.logits.float(), labels, label_smoothing=LABEL_SMOOTHING)
    balance = expert_balance if config.routing == "expert_choice" else token_balance
    routing = Z_WEIGHT * z_loss(out) + BALANCE_WEIGHT[config.routing] * balance(config, out)
    return task + routing


def z_loss(out: Pass) -> Tensor:
    """Keeps router logits small: the mean squared logsumexp over depths, or z² for a router of one logit."""
    zs = [z.float() if z.dim() == 1 else z.float().logsumexp(-1) for z in out.router_logits]
    return torch.stack([z.square().mean() for z in zs]).mean()


def expert_balance(config: Config, out: Pass) -> Tensor:
    """The mean keep probability of a step's active tokens should be the share that its capacity keeps."""
    assert config.capacity is not None
    images = len(out.logits)
    gaps = [
        z.float().sigmoid().mean() - min(1.0, k * images / len(z))
        for z, k in zip(out.router_logits, config.capacity, strict=True)
    ]
    return torch.stack([gap.square() for gap in gaps]).mean()


def token_balance(config: Config, out: Pass) -> Tensor:
    """Depths should be used evenly: L · Σ share(s) · probability(s), least (1) when all are equal (Switch)."""
    layers = config.num_layers
    share = torch.bincount(out.depth.flatten() - 1, minlength=layers) / out.depth.numel()
    probability = out.router_logits[0].float().softmax(-1).mean(dim=(0, 1))
    return layers * (share * probability).sum()
