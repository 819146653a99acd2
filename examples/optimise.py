"""The training loop: Muon and AdamW, warm-up and cosine, exploration noise that fades, and averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import digits
import losses
import torch
import trainable
from resume import Run
from torch import Generator, Tensor, nn

from morvit_deploy.model.reference import MoRViT

POSITION_SCALE = 0.3
EMBEDDINGS = ("cls_token", "pos_embed")
BLOCKS = {"first", "cycle", "last"}
Trained = TypeVar("Trained", bound=nn.Module)


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run, apart from the model and the seed."""

    steps: int = 4000
    batch: int = 64
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.01
    warmup: int = 200
    average: float = 0.998  # decay of the averaged weights
    noise: float = 0.5  # Gumbel noise on router logits at the start; none in the last third
    elastic: float = 1.2  # pixels by which training digits are bent
    precision: str = "float32"  # or bfloat16, for the forward and backward pass


def initialise(model: MoRViT) -> None:
    """Truncated normal matrices and zero biases; positions start as sine waves, and routers undecided, near z = 0."""
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and "patch_embed" not in name:
            nn.init.trunc_normal_(parameter, std=0.02 if name in EMBEDDINGS else 0.05)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
        if name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
            nn.init.zeros_(parameter)  # or routers learn to spare the digit from an untrained block's noise
    with torch.no_grad():
        positions = sine_positions(model.config.num_patches, model.config.embed_dim)
        model.pos_embed[0, 1:] = POSITION_SCALE * positions


def sine_positions(patches: int, dim: int) -> Tensor:
    """2-D sine-cosine position embedding (patches, dim): the model starts out knowing which patches are near."""
    side = round(patches**0.5)
    frequencies = torch.logspace(0, -1.3, dim // 4)  # radians per patch, 1 down to 0.05
    angles = torch.arange(side)[:, None] * frequencies  # (side, dim / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    rows, columns = torch.arange(patches) // side, torch.arange(patches) % side
    return torch.cat([waves[rows], waves[columns]], dim=1)


Objective = Callable[[float, Generator], Tensor]  # the loss when so much of the run is over, 0 … 1


def train(
    model: Trained,
    objective: Objective,
    recipe: Recipe,
    seed: int,
    tick: Callable[[str, int], None],
    state: Path | None = None,
) -> Trained:
    """Train `model` in place and return the averaged model; `tick(message, steps done)` is called after every step.

    With `state`, the run is saved to that file now and then, and goes on from it if it exists.
    """
    optimisers = _optimisers(model, recipe)
    averaged = copy.deepcopy(model).requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    settings = {**asdict(recipe), "seed": seed, "shapes": str([tuple(p.shape) for p in model.parameters()])}
    run = Run([model, averaged, *optimisers], generator, settings, state)
    for step in range(run.load(), recipe.steps):
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * _pace(step, recipe)
            optimiser.zero_grad()
        loss = objective(step / recipe.steps, generator)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        _average(averaged, model, min(recipe.average, (1 + step) / (10 + step)))
        run.save(step + 1)
        tick(f"loss {loss.item():.3f}", step + 1)
    return averaged


def digits_objective(model: MoRViT, source: digits.Source, recipe: Recipe) -> Objective:
    """The loss of cluttered digits."""

    def loss(done: float, generator: Generator) -> Tensor:
        picks = digits.random_picks(source, recipe.batch, generator)
        batch = digits.draw(source, picks, generator, recipe.elastic)
        # A depth router learns first what each layer brings to each token, then to choose among them.
        dense = min(1.0, max(0.0, (0.6 - done) / 0.3))
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            out = trainable.forward(model, normalise(model, batch.images), exploration(recipe, done), dense)
        return losses.objective(model.config, out, batch.labels)

    return loss


def exploration(recipe: Recipe, done: float) -> float:
    """The scale of the routers' noise when `done` of the run is over."""
    return recipe.noise * max(0.0, 1 - 1.5 * done)


def normalise(model: MoRViT, images: Tensor) -> Tensor:
    """Pictures (batch, 3, h, w) in [0, 1] to the model's input, by its config's mean and std."""
    preprocess = model.config.preprocess
    mean, std = (torch.tensor(x)[:, None, None] for x in (preprocess.mean, preprocess.std))
    return (images - mean) / std


def _optimisers(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW for all else: three times fewer steps here than AdamW alone."""
    named = dict(model.named_parameters())
    inner = {n for n, p in named.items() if p.dim() == 2 and BLOCKS & set(n.split("."))}
    matrices = [p for n, p in named.items() if n in inner]
    others = [p for n, p in named.items() if n not in inner]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, weight_decay=0.0, betas=(0.9, 0.98)),
    ]


def _pace(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.5 * (1 + math.cos(math.pi * done))


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    for slow, fast in zip(averaged.parameters(), model.parameters(), strict=True):
        slow.lerp_(fast, 1 - decay)
