"""What a model learns from scenes: the largest digit, the digit under each token, and which tokens to run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import digits
import losses
import scenes
import torch
import trainable
from optimise import Objective, Recipe, exploration, normalise
from selection import AcrossBatch, PerImage, Running, Selection, everything
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from morvit_deploy.model.reference import MoRViT

SPARE = 8  # candidates of an image beyond those that the fullest one keeps
SETTLING = 50  # batches that the thresholds are averaged over after training


@dataclass(frozen=True)
class SceneRecipe(Recipe):
    """Budgets vary in training, so that one model serves many; capacities below are the config's times a factor."""

    steps: int = 3000
    learning_rate: float = 2e-3
    noise: float = 0.2
    selection: str = "batch"  # or image: who competes for the capacity
    token_weight: float = 1.0  # of the loss of single tokens
    start: float = 2.0  # factor at the start; 1 from `settles` on
    settles: float = 0.4  # share of the run
    varied: float = 0.4  # share of the batches with a factor of their own
    least: float = 0.35
    most: float = 1.5
    full: float = 0.04  # share of the later batches in which every token runs every step


class Student(nn.Module):
    """The model, and a head for single tokens that training needs and deployment does not (paper §3.4.7)."""

    def __init__(self, model: MoRViT) -> None:
        super().__init__()
        dim = model.config.embed_dim
        self.model = model
        self.token_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 10))


def scene_objective(student: Student, source: digits.Source, recipe: SceneRecipe) -> Objective:
    """The loss of a fresh batch of scenes."""
    config = student.model.config

    def loss(done: float, generator: Generator) -> Tensor:
        batch = scenes.draw(source, recipe.batch, generator)
        select = selected(config.capacity, recipe, done, generator) if config.capacity else None
        dense = min(1.0, max(0.0, (0.6 - done) / 0.3))
        images = normalise(student.model, batch.images)
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            noise = exploration(recipe, done)
            out = trainable.forward(student.model, images, noise, dense, select, SPARE, gate_teaches=False)
            tokens = student.token_head(out.states)
        seen = scenes.patch_digits(batch, config.num_patches)
        of_tokens = F.cross_entropy(tokens.float().flatten(0, 1), seen.flatten(), ignore_index=scenes.NOTHING)
        return losses.objective(config, out, batch.labels) + recipe.token_weight * of_tokens

    return loss


def selected(capacity: tuple[int, ...], recipe: SceneRecipe, done: float, generator: Generator) -> Selection:
    """The selection of one batch when `done` of the run is over."""
    varied, full, where = torch.rand(3, generator=generator).tolist()
    if done >= recipe.settles and full < recipe.full:
        return everything
    factor = 1 + (recipe.start - 1) * max(0.0, 1 - done / recipe.settles)
    if varied < recipe.varied:
        factor *= recipe.least + (recipe.most - recipe.least) * where
    if recipe.selection == "image":
        return PerImage([max(1, round(k * factor)) for k in capacity], neutral=True)
    return AcrossBatch([k * factor for k in capacity])


@torch.no_grad()
def settled_thresholds(
    model: MoRViT, source: digits.Source, capacity: Sequence[float], seed: int
) -> list[float]:
    """Running thresholds of a trained model with which `capacity[step]` tokens an image run a step on average.

    The averaged model's router logits are not those of the model that was trained. This is what
    `torch.optim.swa_utils.update_bn` does for batch norm.
    """
    generator = torch.Generator().manual_seed(seed)
    running = Running(capacity, momentum=2 / (SETTLING + 1))
    for _ in range(SETTLING):
        batch = scenes.draw(source, 64, generator)
        trainable.forward(model, normalise(model, batch.images), select=running, spare=0)
    return running.thresholds
