"""Token choice: each token's depth is chosen before the first layer; layer s runs the tokens with depth >= s."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.dispatch import counts_of
from morvit_deploy.graph.step import Carried, StaticRouting
from morvit_deploy.model.config import Config


class TokenChoice(StaticRouting):
    """Routing `token_choice` (Edge-RecViT)."""

    @staticmethod
    def splits_cycle(config: Config, sorts: bool) -> bool:
        return sorts

    def begin(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """Choose each token's depth; if a bucket holds fewer tokens than all, sort the tokens, deepest first."""
        z = out["depth.router_logits"] = self.graph.router(0)(h)
        depth = self.layout.patch_depths(z)  # (…, N)
        if self.options.with_depth:
            out["depth"] = depth.to(torch.int32)
        if self.graph.sorts:
            order = out["depth.order"] = self.selection.by_depth(depth)
            h = self.selection.partition(h, order, self.config.num_patches, both=True)[0]
            depth = self.selection.numbers(depth, order)
        carried = {"h": h, "depth": depth}
        if self.graph.sorts and self.graph.in_order:
            carried["numbers"] = self.selection.numbers(
                self.selection.places(h, self.config.num_patches), order
            )
        return carried

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Run the layers: layer s holds its capacity of tokens, deepest first, and updates those with depth >= s."""
        depth = carried["depth"]
        state = self.state(carried["h"])
        if "numbers" in carried:
            state.held, state.sorted = carried["numbers"], True
        if self.graph.sorts:
            needed = counts_of(self.layout.vector(depth), self.config.num_layers)
            state.overflow = (needed > torch.tensor(self.capacity)).any(dim=-1)
        for layer, name in enumerate(self.graph.names, start=1):
            capacity = self.capacity[layer - 1] if self.graph.sorts else self.config.num_patches
            if capacity < self.layout.count(state.h) - 1:
                if self.config.attention_scope == "all" or self.graph.reads_all:
                    state.left.append(self.layout.beyond(state.h, 1 + capacity))
                if state.sorted:
                    state.gone.append(state.held[..., capacity:])
                    state.held = state.held[..., :capacity]
                state.h = self.layout.first(state.h, 1 + capacity)
            state.runs = depth[..., :capacity] >= layer if layer > 1 else None
            final = layer == len(self.graph.names) and self.graph.cls_alone
            after = self.attend(name, state.h, state, final)
            state.h = out[f"step{layer}.state"] = self.only_running(state.h, after, state.runs)
        if state.overflow is not None:
            out["overflow"] = state.overflow
        h = self.layout.join([state.h, *state.left]) if self.graph.reads_all else state.h
        return self.in_own_order(h, state) if self.graph.in_order else h

    def counts(self, carried: Carried) -> Tensor:
        """Return how many patch tokens run each layer."""
        return counts_of(self.layout.vector(carried["depth"]), self.config.num_layers)
