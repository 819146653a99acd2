"""Figures of a trained model: accuracy, routing quality and multiply-accumulates."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import digits
import pictures
import torch
import trainable
from optimise import normalise
from routing_quality import routing_quality
from torch import Tensor

from morvit_deploy.model.macs import dense_macs, schedule_macs
from morvit_deploy.model.reference import MoRViT

PLACEMENTS = 10  # pictures of each test digit
SEED = 7
SHIPPED = Path(__file__).parent / "digits-test"
CHUNK = 225  # pictures a forward pass


def evaluate(model: MoRViT) -> dict[str, Any]:
    """Figures on test digits that training never saw, drawn anew and as shipped PNG files."""
    _, source = digits.load_sources()
    picks = torch.arange(len(source.labels)).repeat(PLACEMENTS)
    batch = digits.draw(source, picks, torch.Generator().manual_seed(SEED))
    predicted, depth = answers(model, batch.images)
    quality = routing_quality(depth, batch.ink)
    images, labels = pictures.read(SHIPPED)
    return {
        "top1": share_right(predicted, batch.labels),
        "images": len(picks),
        "top1_shipped": share_right(answers(model, images)[0], labels),
        "shipped_images": len(labels),
        **{name: round(value, 4) for name, value in asdict(quality).items()},
        "degenerate_routing": quality.degenerate,
        **mac_figures(model, depth),
        "parameters": sum(p.numel() for p in model.parameters()),
    }


@torch.no_grad()
def answers(model: MoRViT, images: Tensor) -> tuple[Tensor, Tensor]:
    """Classes (n,) and patch depths (n, N) for pictures (n, 3, h, w) in [0, 1]."""
    passes = [trainable.forward(model, normalise(model, part)) for part in images.split(CHUNK)]
    return torch.cat([p.logits.argmax(1) for p in passes]), torch.cat([p.depth for p in passes])


def share_right(predicted: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy of classes (n,)."""
    return round((predicted == labels).double().mean().item(), 4)


def mac_figures(model: MoRViT, depth: Tensor) -> dict[str, Any]:
    """MACs of every token in every layer, and as routed: the mean over images of depth (images, N)."""
    steps = range(1, model.config.num_steps + 1)
    capacities = torch.stack([(depth >= s).sum(dim=1) for s in steps], dim=1)  # (images, steps)
    routed = [schedule_macs(model.config, tuple(row)) for row in capacities.tolist()]
    dense, mean = dense_macs(model.config), sum(routed) / len(routed)
    return {"macs_dense": dense, "macs_routed": round(mean), "macs_share": round(mean / dense, 4)}
