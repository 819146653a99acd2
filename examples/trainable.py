"""A batched, differentiable forward over the reference's own modules, for training.

The reference walks image by image and picks tokens with a hard top-k, which gives the routers no gradient for
the tokens that they dropped. Here every *candidate* of a step is computed and carries a mask that is 0 or 1 in
value but has the gradient of a soft keep probability (straight-through, as DynamicViT and Gumbel-softmax do). So the
values are the reference's, and a router also learns what a dropped token would have brought.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from selection import OPEN, Choice, PerImage, Selection
from torch import Tensor
from torch.nn import functional as F

from morvit_deploy.model.layers import Attention, Block
from morvit_deploy.model.reference import MoRViT

STEP_TEMPERATURE = 1.0  # of the soft keep probability, in router logits


@dataclass(frozen=True)
class Pass:
    """What a training step needs to know of one forward pass."""

    logits: Tensor  # (batch, classes)
    depth: Tensor  # (batch, N) steps that each patch token ran
    router_logits: list[Tensor]  # expert_choice: (active,) a step; token_choice: one (batch, N, layers)
    states: Tensor  # (batch, N, dim) in which the patch tokens left


def forward(
    model: MoRViT,
    images: Tensor,
    noise: float = 0.0,
    dense: float = 0.0,
    select: Selection | None = None,
    spare: int | None = None,
    gate_teaches: bool = True,
) -> Pass:
    """Normalised images (batch, 3, height, width) through the model.

    `noise` scales Gumbel noise on the routers' choice; `dense` is the share of images that token_choice sends
    through every layer whatever the router says. With 0 and 0 the values are the reference's.
    expert_choice: `select` says which tokens run a step, by default the config's capacity for each image. With
    `spare`, only as many candidates of each image are computed as the fullest image keeps, and so many more: much
    less compute, and dropped tokens far from the threshold teach nothing. Values are the same. Unless
    `gate_teaches`, routers learn from the selection alone and not from the factor g.
    """
    h = model.embed(images)
    if model.config.routing == "expert_choice":
        assert model.config.capacity is not None
        chosen = select or PerImage(model.config.capacity)
        computed = model.config.num_patches if spare is None else spare
        return _expert_choice(model, h, noise, chosen, computed, gate_teaches)
    everywhere = torch.rand(len(h), 1) < dense if dense else torch.zeros(len(h), 1, dtype=torch.bool)
    return _token_choice(model, h, noise, everywhere)


@dataclass(frozen=True)
class Held:
    """Patch tokens of a batch of images. Images keep different numbers, so some may be inactive: they have left."""

    states: Tensor  # (batch, n, dim)
    place: Tensor  # (batch, n) which patch each token is
    active: Tensor  # (batch, n) bool

    def at(self, index: Tensor) -> Held:
        """The tokens at index (batch, k)."""
        return Held(take(self.states, index), self.place.gather(1, index), self.active.gather(1, index))


def _expert_choice(
    model: MoRViT, h: Tensor, noise: float, select: Selection, spare: int, gate_teaches: bool
) -> Pass:
    """h (batch, N+1, dim) through first, R routed steps and last."""
    if model.first is not None:
        h = model.first(h)
    cls, place = h[:, :1], torch.arange(h.shape[1] - 1).expand(len(h), -1)
    held = Held(h[:, 1:], place, torch.ones_like(place, dtype=torch.bool))
    depth = torch.zeros_like(place)
    left: list[Held] = []
    zs: list[Tensor] = []
    for step in range(model.config.num_recursions):
        z = model.router(step)(torch.cat([cls, held.states], dim=1))[..., 0]  # (batch, 1 + n)
        zs.append(z[:, 1:][held.active])
        scores = z[:, 1:].detach() + noise * gumbel(z[:, 1:])
        choice = select(step, z[:, 1:], scores, held.active)
        depth = depth.scatter_add(1, held.place, choice.keep.long())
        order = scores.masked_fill(~held.active, OPEN).argsort(dim=1, descending=True, stable=True)
        computed = int(choice.keep.sum(dim=1).max()) + spare
        near, far = order[:, :computed], order[:, computed:]
        left.append(held.at(far))
        mask = keep_mask(z[:, 1:], choice, held.active).gather(1, near)
        z = torch.cat([z[:, :1], z[:, 1:].gather(1, near)], dim=1)
        h = torch.cat([cls, take(held.states, near)], dim=1)
        g = model.score(z if gate_teaches else z.detach())
        h = _gated_step(model, h, F.pad(mask, (1, 0), value=1.0), g, [x.states for x in left])
        cls, held = h[:, :1], Held(h[:, 1:], held.place.gather(1, near), choice.keep.gather(1, near))
    if model.last is not None:  # only CLS feeds the head; the order of its keys is indifferent
        cls = model.last(cls, torch.cat([cls, held.states, *[x.states for x in left]], dim=1))
    return Pass(model.classify(cls[:, 0]), depth, zs, _in_place([held, *left]))


def _gated_step(model: MoRViT, h: Tensor, mask: Tensor, g: Tensor, left: list[Tensor]) -> Tensor:
    """The cycle and the gate on h (batch, n, dim) where mask (batch, n) is 1; the other tokens stand still."""
    new = h
    for block in model.cycle_blocks():
        if model.config.attention_scope == "all":
            advanced = block(new, torch.cat([new, *left], dim=1))
        else:
            advanced = masked_block(block, new, mask)
        new = _mix(new, advanced, mask)
    g = g[..., None]
    gated = {"block": h + g * new, "delta": h + g * (new - h), "hard": new}[model.config.gate]
    return _mix(h, gated, mask)


def _token_choice(model: MoRViT, h: Tensor, noise: float, everywhere: Tensor) -> Pass:
    """h (batch, N+1, dim): depth from the embeddings, then layer s updates the tokens of depth >= s.

    Images where `everywhere` (batch, 1) is true have all tokens updated; the router still learns from them.
    """
    z = model.router(0)(h[:, 1:])  # (batch, N, layers)
    order = (z + noise * gumbel(z)).argsort(dim=-1, descending=True, stable=True)
    depth = order[..., 0] + 1
    reach = z.softmax(-1).flip(-1).cumsum(-1).flip(-1)  # P(depth >= s), (batch, N, layers)
    for layer, (_, block) in enumerate(model.layers(), start=1):
        if layer == model.config.num_layers and model.config.attention_scope == "all":
            h = torch.cat([block(h[:, :1], h), h[:, 1:]], dim=1)  # only CLS feeds the head
            break
        soft = reach[..., layer - 1]
        hard = ((depth >= layer) | everywhere).to(soft)
        mask = F.pad(hard + (soft - soft.detach()), (1, 0), value=1.0)
        new = block(h) if model.config.attention_scope == "all" else masked_block(block, h, mask)
        h = _mix(h, new, mask)
    return Pass(model.classify(h[:, 0]), depth, [z], h[:, 1:])


def keep_mask(z: Tensor, choice: Choice, active: Tensor) -> Tensor:
    """1 for the kept, 0 for the others, with the gradient of a sigmoid about the threshold; z (batch, n)."""
    soft = torch.sigmoid((z - choice.threshold) / STEP_TEMPERATURE) * active
    return choice.keep.to(z) + (soft - soft.detach())


def masked_block(block: Block, x: Tensor, mask: Tensor) -> Tensor:
    """block(x) for x (batch, n, dim) where a key's attention weight is multiplied by mask (batch, n)."""
    x = x + _masked_attention(block.attn, block.norm1(x), mask)
    new: Tensor = x + block.mlp(block.norm2(x))
    return new


def _masked_attention(attn: Attention, x: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention whose weights are multiplied by mask and normalised again."""
    q, k, v = attn.qkv(x).unflatten(-1, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5  # (batch, heads, n, n)
    # The highest kept score, so that the sum below cannot vanish; -1e4 stands for a dropped key.
    top = (scores.detach() + (mask.detach()[:, None, None] - 1) * 1e4).amax(-1, keepdim=True)
    weights = (scores - top).clamp(max=30).exp() * mask[:, None, None]
    weights = weights / weights.sum(-1, keepdim=True)
    mixed: Tensor = attn.proj((weights @ v).transpose(1, 2).flatten(2))
    return mixed


def _in_place(parts: list[Held]) -> Tensor:
    """The states (batch, N, dim) of all tokens, each part's where its patches are."""
    states, place = torch.cat([p.states for p in parts], dim=1), torch.cat([p.place for p in parts], dim=1)
    return take(states, place.argsort(dim=1))


def gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise, of the shape of `like`."""
    return -torch.empty_like(like).exponential_().log().clamp(min=-10).detach()


def take(tokens: Tensor, index: Tensor) -> Tensor:
    """The tokens (batch, n, dim) at index (batch, k): (batch, k, dim)."""
    return tokens.gather(1, index[..., None].expand(-1, -1, tokens.shape[-1]))


def _mix(old: Tensor, new: Tensor, mask: Tensor) -> Tensor:
    """new where mask (batch, n) is 1, old where it is 0, for states (batch, n, dim)."""
    return old + mask[..., None] * (new - old)
