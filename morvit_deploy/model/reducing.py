"""The reference of routings that shorten a plain ViT: fewer tokens from some of its layers on.

States are a table with a row for each token that ever existed: CLS, the patches, and the tokens that steps append. A
token that has left keeps its last state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morvit_deploy.model.selecting import decide, order_of
from morvit_deploy.model.trace import Routing, Trace

if TYPE_CHECKING:
    from morvit_deploy.model.reference import MoRViT


def attentive(model: MoRViT, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
    """Select by the attention of CLS, between a layer's attention and its MLP (EViT).

    The score of a token is the softmax weight that CLS gives it, the mean over the heads. With `fuse`, the sum of the
    tokens that leave, each times its score, goes on as one token more.
    """
    assert model.config.reduction is not None
    steps = _steps(model)
    active, depth = torch.arange(len(h)), torch.zeros(len(h), dtype=torch.long)
    for layer, block in enumerate(model.cycle_blocks()):
        x, weights, _ = block.attended(h[active])
        if layer in steps:
            scores = weights.mean(dim=-3)[0, 1:]  # of CLS to the others, (n - 1,)
            decision = decide(order_of(scores, chosen), active[1:] - 1, steps[layer], chosen)
            trace.decisions.append(decision)
            stays = torch.isin(active, torch.cat([active[:1], decision.kept + 1]))
            if model.config.reduction.fuse and not stays.all():
                leaving = ~stays
                fused = scores[leaving[1:]] @ x[leaving]
                x, active = (
                    torch.cat([x[stays], fused[None]]),
                    torch.cat([active[stays], active.new_tensor([len(h)])]),
                )
                h = torch.cat([h, fused[None]])
            else:
                x, active = x[stays], active[stays]
            depth[decision.kept[decision.kept < model.config.num_patches] + 1] += 1
        h = h.index_copy(0, active, block.fed(x))
        if layer in steps:
            trace.states[f"step{steps[layer] + 1}"] = h
    return h, depth


def predicted(model: MoRViT, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
    """Select by a predictor that reads the patch tokens still there, before a layer (DynamicViT)."""
    steps = _steps(model)
    active, depth = torch.arange(len(h)), torch.zeros(len(h), dtype=torch.long)
    for layer, block in enumerate(model.cycle_blocks()):
        if layer in steps:
            z = model.predictors()[steps[layer]](h[active[1:]])[:, 0]
            decision = decide(order_of(z, chosen), active[1:] - 1, steps[layer], chosen)
            trace.decisions.append(decision)
            active = torch.cat([active[:1], decision.kept + 1])
            depth[decision.kept + 1] += 1
        h = h.index_copy(0, active, block(h[active]))
        if layer in steps:
            trace.states[f"step{steps[layer] + 1}"] = h
    return h, depth


def _steps(model: MoRViT) -> dict[int, int]:
    """Return the step, from 0, of each layer at which tokens leave."""
    assert model.config.reduction is not None
    return {layer: step for step, layer in enumerate(model.config.reduction.layers)}
