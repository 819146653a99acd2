"""A token_choice router whose mean depth can be set: for benchmarks of models that nobody has trained.

A randomly initialised router favours a few depths by chance. `set_depths` makes one that spreads the tokens over the
layers, by what they show, around a mean that is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.errors import ConfigError
from morvit_deploy.model.reference import MoRViT

SPREAD = 3.0  # layers, standard deviation; depths evenly over 1 … 12 have 3.5, and digits-token has 1.7 in 6 layers
CONSTANT = 1.0  # length of the constant direction; embeddings of `init_model` are about 15 long
LEVEL = 8.0  # of the unit that carries the constant: so high that GELU leaves it as it is
_HALVINGS = 60


def set_depths(model: MoRViT, images: Tensor, mean: float, spread: float = SPREAD, seed: int = 0) -> float:
    """Change `model` in place so that the mean depth of the patch tokens of `images` is `mean`; the mean reached.

    images (n, 3, height, width) are normalised. A token's depth is round(m + spread · s), clipped to 1 … L, where s
    is what the router's ordinary random weights make of its embedding, standardised over the images, and m is found
    by bisection. The router needs hidden layers, and no biases: m comes through a constant, as one direction of the
    embedding holds nothing but CONSTANT, and one hidden unit of each layer carries it on. ConfigError for a mean that
    no depths have.
    """
    layers = model.config.num_layers
    if not 1 <= mean <= layers:
        raise ConfigError(f"mean: got {mean}, expected a depth from 1 to {layers}")
    last = _carry_constant(model, seed)
    scores = model.router(0)(model.embed(images))[:, 1:, 0].double()  # (n, N), of the ordinary weights
    scale, centre = spread / scores.std(), scores.mean()
    middle = _bisected(scale * (scores - centre), mean, layers)
    steps = torch.arange(1, layers + 1, dtype=torch.float64) - (layers + 1) / 2  # centred: logits stay small
    shift = middle - scale * centre - (layers + 1) / 2
    ordinary = last[0].double()
    last.copy_(scale * steps[:, None] * ordinary)  # argmax over d of d·y − d²/2 is y, rounded
    last[:, 0] = (steps * shift - steps**2 / 2) / LEVEL
    return depths(model, images).double().mean().item()


def depths(model: MoRViT, images: Tensor) -> Tensor:
    """Of the patch tokens: images (n, 3, height, width) to (n, N), 1 … L."""
    scores: Tensor = model.router(0)(model.embed(images))
    return scores[:, 1:].argmax(dim=-1) + 1


def _carry_constant(model: MoRViT, seed: int) -> Tensor:
    """Give one direction of the embedding, and unit 0 of each hidden layer, to a constant; the last layer's weight.

    Unit 0 is LEVEL for every patch token, and the last layer does not read it yet.
    """
    direction = torch.randn(model.config.embed_dim, generator=torch.Generator().manual_seed(seed))
    direction /= direction.norm()
    patch = model.patch_embed.proj
    assert patch.bias is not None
    patch.weight -= torch.einsum("d,e,e...->d...", direction, direction, patch.weight)
    patch.bias.sub_(direction * (direction @ patch.bias))
    model.pos_embed.sub_((model.pos_embed @ direction)[..., None] * direction)
    model.pos_embed[:, 1:] += CONSTANT * direction
    first, *middle, last = [layer.weight for layer in model.router(0).linears()]
    first[0] = LEVEL / CONSTANT * direction
    for weight in middle:
        weight[0] = 0
        weight[0, 0] = 1
    last[:, 0] = 0
    return last


def _bisected(scores: Tensor, mean: float, layers: int) -> float:
    """The m for which round(m + scores), clipped to 1 … layers, has this mean: it rises with m."""
    low, high = -float(scores.max()), layers + 1 - float(scores.min())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = (middle + scores).round().clip(1, layers).mean().item()
        low, high = (middle, high) if reached < mean else (low, middle)
    return high
