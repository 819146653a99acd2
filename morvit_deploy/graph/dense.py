"""No routing: every token runs every layer."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import cls_only
from morvit_deploy.graph.step import Carried, StaticRouting


class Dense(StaticRouting):
    """Routing `none`."""

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        h, names = carried["h"], self.graph.names
        if self.options.with_depth:
            numbers = self.selection.places(h, self.config.num_patches)
            out["depth"] = torch.full(numbers.shape, self.config.num_recursions, dtype=torch.int32)
        for layer, name in enumerate(names, start=1):
            block = self.graph.block(name)
            if layer == len(names) and self.graph.cls_alone:
                return cls_only(block, h, layout=self.layout)
            h = out[f"layer{layer}.state"] = block(h)
        if self.graph.in_order:
            return self.layout.first(self.layout.beyond(h, self.config.front), self.config.num_patches)
        return h
