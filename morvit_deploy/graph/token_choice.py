"""Token choice: each token has a depth of its own from the start; layer s runs those that are deep enough."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.dispatch import counts_of
from morvit_deploy.graph.step import Carried, StaticGraph


class TokenChoice(StaticGraph):
    """The walk of `token_choice` (Edge-RecViT)."""

    def _choose_depths(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """Each token's depth; where a bucket holds fewer than all, the tokens in the order of it, deepest first."""
        z = out["depth.router_logits"] = self._router(0)(h)
        depth = self.layout.patch_depths(z)  # (…, N)
        if self.options.with_depth:
            out["depth"] = depth.to(torch.int32)
        if self.sorts:
            order = out["depth.order"] = self.selection.by_depth(depth)
            h = self.selection.partition(h, order, self.config.num_patches, both=True)[0]
            depth = self.selection.numbers(depth, order)
        return {"h": h, "depth": depth}

    def _depths(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Layer s holds its capacity of tokens, deepest first, and updates those that are deep enough."""
        depth = carried["depth"]
        walk = self._walk(carried["h"])
        if self.sorts:
            needed = counts_of(self.layout.vector(depth), self.config.num_layers)
            walk.overflow = (needed > torch.tensor(self.capacity)).any(dim=-1)
        for layer, name in enumerate(self.names, start=1):
            capacity = self._capacity(layer - 1, depth >= layer) if self.sorts else self.config.num_patches
            if capacity < self.layout.count(walk.h) - 1:
                if self.config.attention_scope == "all":
                    walk.left.append(self.layout.beyond(walk.h, 1 + capacity))
                walk.h = self.layout.first(walk.h, 1 + capacity)
            walk.runs = depth[..., :capacity] >= layer if layer > 1 else None
            final = layer == len(self.names) and self.options.cls_only
            after = self._attend(name, walk.h, walk, final)
            walk.h = out[f"step{layer}.state"] = self._only_running(walk.h, after, walk.runs)
        if walk.overflow is not None:
            out["overflow"] = walk.overflow
        return walk.h
