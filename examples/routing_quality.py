"""Does the model think longer about the digit? Depth of digit and background patches, and the AUC between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

FAIR_SHARE = 0.15  # of a patch's pixels must be ink for it to count as digit
DEGENERATE = 0.1  # an AUC this close to 0.5 says that depth ignores the image's content


@dataclass(frozen=True)
class RoutingQuality:
    """Mean steps on digit and on background patches, and AUC of depth against the digit mask."""

    mean_depth: float
    digit_depth: float
    background_depth: float
    auc: float

    @property
    def degenerate(self) -> bool:
        return abs(self.auc - 0.5) <= DEGENERATE


def routing_quality(depth: Tensor, ink: Tensor) -> RoutingQuality:
    """depth (images, N) of patches row by row, ink (images, height, width) in [0, 1]."""
    on_digit = digit_patches(ink, depth.shape[1])
    steps = depth.double()
    return RoutingQuality(
        mean_depth=steps.mean().item(),
        digit_depth=steps[on_digit].mean().item(),
        background_depth=steps[~on_digit].mean().item(),
        auc=auc(depth[on_digit], depth[~on_digit]),
    )


def digit_patches(ink: Tensor, patches: int) -> Tensor:
    """Which patches (images, N) hold a fair share of ink (images, height, width)."""
    side = round(patches**0.5)
    return F.avg_pool2d(ink[:, None], ink.shape[-1] // side).flatten(1) > FAIR_SHARE


def auc(positive: Tensor, negative: Tensor) -> float:
    """Chance that a positive's depth is above a negative's; equal depths count half."""
    top = int(max(positive.max(), negative.max())) + 1
    up, down = (torch.bincount(x.flatten(), minlength=top).double() for x in (positive, negative))
    below = down.cumsum(0) - down  # negatives strictly below each depth
    return ((up * (below + down / 2)).sum() / (up.sum() * down.sum())).item()
