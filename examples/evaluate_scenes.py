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
from selection import OPEN, ByThreshold, PerImage, Selection, everything
from torch import Tensor

from morvit_deploy.model.answers.accuracy import Z
from morvit_deploy.model.config import Config
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


def evaluate(model: MoRViT, source: digits.Source, images: int = IMAGES) -> dict[str, Any]:
    """Figures on pictures of digits that training never saw."""
    own = answers(model, source, own_selection(model.config), images)
    routes = model.config.capacity is not None
    every = answers(model, source, everything, images) if routes else None
    return {
        "images": images,
        "top1": share(own.right),
        "top1_every_token": share(every.right) if every else None,
        "lost": lost(own, every) if every else None,
        "auc": round(auc(own.depth[own.inked], own.depth[~own.inked]), 4),
        "tokens_by_objects": tokens_by_objects(own),
        "token_correlation": correlation(own.depth.sum(dim=1), own.objects),
        "macs": mean_macs(model.config, own.depth),
        "budgets": budgets(model, source, images) if routes else None,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


def own_selection(config: Config) -> Selection | None:
    """The selection by the checkpoint's thresholds; None for a checkpoint without."""
    if config.thresholds is None:
        return None
    return ByThreshold([OPEN if tau is None else tau for tau in config.thresholds])


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
    rows = []
    for factor in BUDGETS:
        capacity = scaled(model.config, factor)
        thresholds = settled_thresholds(model, source, capacity, SEED)
        adaptive = answers(model, source, ByThreshold(thresholds), images)
        fixed = answers(model, source, PerImage(capacity), images)
        rows.append(
            {
                "budget": factor,
                "capacity": capacity,
                "top1_thresholds": share(adaptive.right),
                "macs_thresholds": mean_macs(model.config, adaptive.depth),
                "top1_topk": share(fixed.right),
                "macs_topk": schedule_macs(model.config, tuple(capacity)),
            }
        )
    return rows


def scaled(config: Config, factor: float) -> list[int]:
    """The config's capacity times a factor, at least one token and at most all."""
    assert config.capacity is not None
    return [min(config.num_patches, max(1, round(k * factor))) for k in config.capacity]


def counts_of(depth: Tensor, steps: int) -> Tensor:
    """Tokens that ran each step (images, steps), of depths (images, N)."""
    return torch.stack([(depth >= step).sum(dim=1) for step in range(1, steps + 1)], dim=1)


def mean_macs(config: Config, depth: Tensor) -> int:
    """Mean over images of the MACs of the tokens that ran, depth (images, N): the bound with a bucket per image."""
    routed = [schedule_macs(config, tuple(row)) for row in counts_of(depth, config.num_steps).tolist()]
    return round(sum(routed) / len(routed))


def lost(own: Answers, every: Answers) -> dict[str, float]:
    """Points of top-1 that routing costs against every token in every step, and the 95 % interval.

    Both answered the same pictures, so the interval is that of the mean of paired differences.
    """
    difference = every.right.double() - own.right.double()
    error = Z * difference.std().item() / len(difference) ** 0.5
    return {"points": round(100 * difference.mean().item(), 2), "plus_minus": round(100 * error, 2)}


def tokens_by_objects(own: Answers) -> dict[str, float]:
    """Mean token-steps of pictures with so many digits."""
    total = own.depth.sum(dim=1).double()
    return {str(n): round(total[own.objects == n].mean().item(), 1) for n in own.objects.unique().tolist()}


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, of (n,) and (n,); None if one is constant, as the tokens of top-k are."""
    both = torch.stack([a.double(), b.double()])
    return round(torch.corrcoef(both)[0, 1].item(), 4) if bool((both.std(dim=1) > 0).all()) else None


def share(right: Tensor) -> float:
    """Top-1 accuracy."""
    return round(right.double().mean().item(), 4)
