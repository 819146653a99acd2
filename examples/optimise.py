"""The training loop: AdamW, warm-up and cosine, exploration noise that fades, and averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import digits
import losses
import trainable
from morvit_deploy.model import MoRViT


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run, apart from the model and the seed."""

    steps: int = 4000
    batch: int = 128
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    warmup: int = 200
    average: float = 0.998  # decay of the averaged weights
    noise: float = 1.0  # Gumbel noise on router logits at the start; none in the last third
    easy: float = 0.2  # part of the run in which the distractors fade in
    elastic: float = 1.2  # pixels by which training digits are bent


def initialise(model: MoRViT) -> None:
    """Truncated normal weights and embeddings, zero biases: routers start undecided, near z = 0."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "patch_embed" not in name:
            nn.init.trunc_normal_(parameter, std=0.02 if name in ("cls_token", "pos_embed") else 0.05)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def train(
    model: MoRViT, source: digits.Source, recipe: Recipe, seed: int, tick: Callable[[str], None]
) -> MoRViT:
    """Train `model` in place and return the averaged model; `tick(message)` is called after every step."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = _optimiser(model, recipe)
    averaged = copy.deepcopy(model).requires_grad_(False)
    for step in range(recipe.steps):
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * _pace(step, recipe)
        done = step / recipe.steps
        picks = digits.random_picks(source, recipe.batch, generator)
        clutter = min(1.0, done / recipe.easy) if recipe.easy else 1.0
        batch = digits.draw(source, picks, generator, recipe.elastic, clutter)
        noise = recipe.noise * max(0.0, 1 - 1.5 * done)
        out = trainable.forward(model, normalise(model, batch.images), noise)
        loss = losses.objective(model.config, out, batch.labels)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        _average(averaged, model, min(recipe.average, (1 + step) / (10 + step)))
        tick(f"loss {loss.item():.3f}")
    return averaged


def normalise(model: MoRViT, images: Tensor) -> Tensor:
    """Pictures (batch, 3, h, w) in [0, 1] to the model's input, by its config's mean and std."""
    mean, std = (torch.tensor(x)[:, None, None] for x in (_preprocess(model).mean, _preprocess(model).std))
    return (images - mean) / std


def _preprocess(model: MoRViT):
    return model.config.preprocess


def _optimiser(model: MoRViT, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW; only matrices decay, not biases, norms or embeddings."""
    matrices = [p for n, p in model.named_parameters() if p.dim() > 1 and n not in ("cls_token", "pos_embed")]
    others = [p for n, p in model.named_parameters() if p.dim() <= 1 or n in ("cls_token", "pos_embed")]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def _pace(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def _average(averaged: MoRViT, model: MoRViT, decay: float) -> None:
    for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
