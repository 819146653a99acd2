"""Which tokens a step of the reference selects, and the record of the decision."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.model import decisions
from morvit_deploy.model.trace import Decision, Routing


def order_of(values: Tensor, chosen: Routing) -> Tensor:
    """What the tokens are selected by: a router's values (n,), or the same values in random order."""
    if chosen.shuffle is None:
        return values
    return values[torch.randperm(len(values), generator=chosen.shuffle)]


def decide(z: Tensor, candidates: Tensor, step: int, chosen: Routing) -> Decision:
    """Route candidates (n,) with router logits z (n,) at a step (from 0) by a threshold, by top-k, or by both."""
    going, margin = torch.arange(len(z)), float("inf")
    if chosen.thresholds is not None and (threshold := chosen.thresholds[step]) is not None:
        going, margin = decisions.at_least(z, threshold), decisions.threshold_margin(z, threshold)
    capacity = len(z) if chosen.capacity is None else chosen.capacity[step]
    kept = going[decisions.top_k(z[going], capacity)]
    margin = min(margin, decisions.top_k_margin(z[going], capacity))
    wanted = len(kept) if chosen.thresholds is None else len(going)
    return Decision(candidates, candidates[kept], z, margin, wanted)
