"""Routings that shorten a plain ViT: those tokens go on that are first in an order; the others are dropped."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import cls_only
from morvit_deploy.graph.step import Carried, StaticRouting, TokenState
from morvit_deploy.graph.style.blocks import StaticBlock


class Reducing(StaticRouting):
    """Base of `attentive` and `predicted`: the layers of a plain ViT, some of which hold fewer tokens."""

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Run all layers, the last one on CLS alone."""
        assert self.config.reduction is not None
        steps = {layer: step for step, layer in enumerate(self.config.reduction.layers)}
        state, last = self.state(carried["h"]), len(self.graph.names) - 1
        for layer, name in enumerate(self.graph.names):
            block, step = self.graph.block(name), steps.get(layer)
            state.h = self.layer(block, step, layer == last and self.graph.cls_alone, state, out)
            if step is not None:
                out[f"step{step + 1}.state"] = state.h
        if self.options.with_depth:
            out["depth"] = self.depths(state)
        return state.h

    def layer(
        self, block: StaticBlock, step: int | None, alone: bool, state: TokenState, out: dict[str, Tensor]
    ) -> Tensor:
        """Return the states (…, n, dim) after a layer, which may be a step (from 0), for CLS if `alone`."""
        raise NotImplementedError

    def run(self, block: StaticBlock, h: Tensor, alone: bool) -> Tensor:
        """Apply a whole block."""
        return cls_only(block, h, layout=self.layout) if alone else block(h)

    def leave(self, step: int, state: TokenState) -> bool:
        """Whether a step holds fewer patch tokens than there are; otherwise no operation is needed."""
        if self.capacity[step] < self.layout.count(state.h) - 1:
            return True
        state.gone.append(state.held[..., :0])
        return False

    def hold(self, step: int, scores: Tensor, state: TokenState, out: dict[str, Tensor]) -> None:
        """Hold CLS and the best tokens by scores (…, candidates); with `fuse` also the sum of the others."""
        capacity, candidates = self.capacity[step], self.layout.count(state.h) - 1
        assert self.config.reduction is not None
        fuses, with_depth = self.config.reduction.fuse, self.options.with_depth
        ranked = candidates if fuses or with_depth else capacity
        values, order = self.selection.rank(scores, ranked, candidates if fuses else 0)
        out[f"step{step + 1}.order"] = order
        state.h, leavers = self.selection.partition(state.h, order, capacity, fuses)
        if leavers is not None:
            state.h = self.layout.join([state.h, self.layout.weighted(leavers, values[..., capacity:])])
        if with_depth:
            numbers = self.selection.numbers(state.held, order)
            state.gone.append(numbers[..., capacity:])
            state.held = numbers[..., :capacity]
            if fuses:
                number = self._numbered(state)
                added = self.selection.places(state.h, number + 1)[..., number:]
                state.held = torch.cat([state.held, added], dim=-1)

    def depths(self, state: TokenState) -> Tensor:
        """Return the same for the patches alone, without the tokens that steps appended."""
        return super().depths(state)[..., : self.config.num_patches]

    def _numbered(self, state: TokenState) -> int:
        """The number of the token that this step appends: those of the patches come first."""
        return self.config.num_patches + sum(group.shape[-1] > 0 for group in state.gone) - 1


class Attentive(Reducing):
    """Routing `attentive` (EViT)."""

    def layer(
        self, block: StaticBlock, step: int | None, alone: bool, state: TokenState, out: dict[str, Tensor]
    ) -> Tensor:
        if step is None or not self.leave(step, state):
            return self.run(block, state.h, alone)
        q, kv = block.read(state.h)
        scores = block.first_weights(q, kv, state.h.dtype)
        state.h = block.attended(state.h, q, kv)
        self.hold(step, scores[..., 1:], state, out)
        return block.fed(state.h)


class Predicted(Reducing):
    """Routing `predicted` (DynamicViT)."""

    def layer(
        self, block: StaticBlock, step: int | None, alone: bool, state: TokenState, out: dict[str, Tensor]
    ) -> Tensor:
        if step is not None and self.leave(step, state):
            z = self.graph.router(step)(self.layout.beyond(state.h, 1))
            out[f"step{step + 1}.router_logits"] = z
            self.hold(step, self.layout.scores(z), state, out)
        return self.run(block, state.h, alone)
