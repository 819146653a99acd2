"""Flat expert choice: each step's router selects among all tokens, including CLS and those that skipped a step."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import cls_only, one_row
from morvit_deploy.graph.step import Carried, StaticRouting


class FlatChoice(StaticRouting):
    """Routing `expert_choice_flat`."""

    def begin(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """Run first, and the router of the first step."""
        h = out["first"] = self.graph.block("first")(h)
        if not self.routed[0]:
            return {"h": h}
        z = out["step1.router_logits"] = self.graph.router(0)(h)
        return {"h": h, "z": z}

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Each step reorders all tokens and runs the first rows; the other rows follow them unchanged."""
        layout, selection, h = self.layout, self.selection, carried["h"]
        everyone = layout.count(h)
        numbers = selection.places(h, everyone)  # token number of each row; CLS is 0
        ran = torch.zeros_like(numbers, dtype=torch.int32)
        for step, capacity in enumerate(self.capacity):
            running, rest = h, None
            if self.routed[step]:
                z = carried["z"] if step == 0 else self.graph.router(step)(h)
                out[f"step{step + 1}.router_logits"] = z
                order = out[f"step{step + 1}.order"] = selection.rank(layout.scores(z), everyone, 0)[1]
                running, rest = selection.partition_all(h, order, capacity)
                numbers = selection.numbers(numbers, order)
                ran = selection.numbers(ran, order) if self.options.with_depth else ran
            for i in range(self.config.cycle_depth):
                running = self.graph.block(f"cycle.{i}")(running)
            h = running if rest is None else layout.join([running, rest])
            out[f"step{step + 1}.state"] = h
            ran = ran + (torch.arange(everyone) < capacity).to(torch.int32)
        if self.options.with_depth:
            out["depth"] = selection.back(ran, numbers)[..., 1:]
        last = self.graph.block("last")
        if self.graph.reads_all:
            h = last(h)
            h = selection.restored(h, numbers) if any(self.routed) else h
            return layout.beyond(h, 1) if self.graph.in_order else h
        cls = selection.lowest_number(numbers) if any(self.routed) else None
        if self.graph.cls_alone:
            return cls_only(last, h, row=cls, layout=layout, rows=selection.rows)
        return one_row(last(h), cls, layout, selection.rows)
