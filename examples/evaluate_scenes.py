"""Figures of a model trained on scenes: accuracy by budget, and by picture the tokens that it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import digits
import scenes
import torch
import trainable
from optimise import normalise
from routing_quality import auc
from scene_objective import settled_thresholds
from selection import ByThreshold, PerImage, Selection, everything
from torch import Tensor

from morvit_deploy.model.macs import schedule_macs
from morvit_deploy.model.reference import MoRViT

BUDGETS = (0.3, 0.6, 1.0, 1.4)  # times the config's capacity
IMAGES = 5000
CHUNK = 250
SEED = 7


@dataclass(frozen=True)
class Answers:
    """Of n pictures."""

    right: Tensor  # (n,) bool
    depth: Tensor  # (n, N)
    inked: Tensor  # (n, N) bool: which patches show a digit
    objects: Tensor  # (n,)


def evaluate(
    model: MoRViT, source: digits.Source, thresholds: list[float] | None, images: int = IMAGES
) -> dict[str, Any]:
    """Figures on pictures of digits that training never saw."""
    select = ByThreshold(thresholds) if thresholds else None
    own = answers(model, source, select, images)
    return {
        "images": images,
        "top1": share(own.right),
        "top1_every_token": share(answers(model, source, everything, images).right) if thresholds else None,
        "auc": round(auc(own.depth[own.inked], own.depth[~own.inked]), 4),
        "tokens_by_objects": tokens_by_objects(own),
        "token_correlation": round(correlation(own.depth.sum(dim=1), own.objects), 4),
        "macs": mean_macs(model, own.depth),
        "budgets": budgets(model, source, images) if model.config.capacity else None,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


@torch.no_grad()
def answers(model: MoRViT, source: digits.Source, select: Selection | None, images: int) -> Answers:
    """Of the same pictures for every selection."""
    generator = torch.Generator().manual_seed(SEED)
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, images, CHUNK):
        batch = scenes.draw(source, min(CHUNK, images - start), generator)
        out = trainable.forward(model, normalise(model, batch.images), select=select, spare=0)
        inked = scenes.patch_digits(batch, model.config.num_patches) >= 0
        parts.append((out.logits.argmax(dim=1) == batch.labels, out.depth, inked, batch.objects))
    return Answers(*(torch.cat(column) for column in zip(*parts, strict=True)))


def budgets(model: MoRViT, source: digits.Source, images: int) -> list[dict[str, Any]]:
    """Top-1 and mean MACs at several budgets, with thresholds and with as many tokens for every picture."""
    assert model.config.capacity is not None
    rows = []
    for factor in BUDGETS:
        capacity = [min(model.config.num_patches, max(1, round(k * factor))) for k in model.config.capacity]
        adaptive = answers(
            model, source, ByThreshold(settled_thresholds(model, source, capacity, SEED)), images
        )
        fixed = answers(model, source, PerImage(capacity), images)
        rows.append(
            {
                "budget": factor,
                "capacity": capacity,
                "top1_thresholds": share(adaptive.right),
                "macs_thresholds": mean_macs(model, adaptive.depth),
                "top1_topk": share(fixed.right),
                "macs_topk": schedule_macs(model.config, tuple(capacity)),
            }
        )
    return rows


def mean_macs(model: MoRViT, depth: Tensor) -> int:
    """Mean over images of the MACs of the tokens that ran, depth (images, N): the bound with a bucket per image."""
    steps = range(1, model.config.num_steps + 1)
    counts = torch.stack([(depth >= s).sum(dim=1) for s in steps], dim=1)
    routed = [schedule_macs(model.config, tuple(row)) for row in counts.tolist()]
    return round(sum(routed) / len(routed))


def tokens_by_objects(own: Answers) -> dict[str, float]:
    """Mean token-steps of pictures with so many digits."""
    total = own.depth.sum(dim=1).double()
    return {str(n): round(total[own.objects == n].mean().item(), 1) for n in own.objects.unique().tolist()}


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, of (n,) and (n,)."""
    return torch.corrcoef(torch.stack([a.double(), b.double()]))[0, 1].item()


def share(right: Tensor) -> float:
    """Top-1 accuracy."""
    return round(right.double().mean().item(), 4)
