"""Token merging: at some layers, the most similar tokens of two sides become their mean."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from morvit_deploy.graph.maths.merging import added, directions
from morvit_deploy.graph.maths.rewrites import cls_only
from morvit_deploy.graph.step import Carried, StaticRouting, TokenState
from morvit_deploy.model.routings.merged import sides


@dataclass
class MergedState(TokenState):
    """The same, with how many patches each token is the mean of."""

    sizes: Tensor | None = field(default=None)  # (…, 1 + held) numbers, CLS first; None: no token has merged


class Merging(StaticRouting):
    """Routing `merged` (ToMe). A step merges between a layer's attention and its MLP."""

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        reduction, names = self.config.reduction, self.graph.names
        assert reduction is not None
        h = carried["h"]
        state = MergedState(h, self.selection.places(h, self.config.num_patches))
        steps = {layer: step for step, layer in enumerate(reduction.layers)}
        for layer, name in enumerate(names):
            block, mask = self.graph.block(name), self._mask(state)
            if layer == len(names) - 1 and self.graph.cls_alone:
                state.h = cls_only(block, state.h, mask, layout=self.layout)
                break
            q, kv = block.read(state.h)
            state.h = block.attended(state.h, q, kv, mask)
            if layer in steps:
                self.merge(steps[layer], state, block.mean_keys(kv), out)
            stage = f"step{steps[layer] + 1}" if layer in steps else f"layer{layer + 1}"
            state.h = out[f"{stage}.state"] = block.fed(state.h)
        if self.options.with_depth:
            out["depth"] = self.depths(state)
        return state.h

    def _mask(self, state: MergedState) -> Tensor | None:
        """Numbers to add to attention logits: a token that stands for several counts as often."""
        assert self.config.reduction is not None
        if state.sizes is None or not self.config.reduction.proportional:
            return None
        return self.layout.keys(state.sizes.log())

    def merge(self, step: int, state: MergedState, metric: Tensor, out: dict[str, Tensor]) -> None:
        """Merge tokens of side A, the even ones but CLS, into their most similar ones of side B, the odd ones.

        Afterwards come CLS, the rest of A in its order, and B. The metric (…, tokens, width) says what is similar.
        """
        layout, selection = self.layout, self.selection
        _, partners = sides(layout.count(state.h))
        count = layout.count(state.h) - 1 - self.capacity[step]
        unit = directions(metric.to(state.h.dtype), layout)
        best, partner = layout.best_partners(layout.every_second(unit, 2), layout.every_second(unit, 1))
        moved = selection.highest_first(best, count)
        order = out[f"step{step + 1}.order"] = selection.best(moved, count)
        chosen = selection.numbers(partner, order)
        places = torch.arange(partners, dtype=chosen.dtype)
        into = out[f"step{step + 1}.into"] = (layout.as_rows(chosen) == places).to(state.h.dtype)
        self._combine(state, moved, into, count)
        if self.options.with_depth:
            numbers = selection.numbers(state.held[..., 1::2], moved)
            state.gone.append(numbers[..., :count])
            state.held = torch.cat([numbers[..., count:], state.held[..., ::2].to(numbers.dtype)], dim=-1)

    def _combine(self, state: MergedState, moved: Tensor, into: Tensor, count: int) -> None:
        """Replace states and sizes: `moved` is an order of side A, those that merge first, `into` their partners."""
        layout, sizes = self.layout, state.sizes
        ranked = self.selection.rows(layout.every_second(state.h, 2), moved)
        merging, staying = layout.first(ranked, count), layout.beyond(ranked, count)
        alone = layout.count(staying) + 1  # tokens of side A that go on, and CLS
        if sizes is None:
            weight, own = into, None
        else:
            of_a, own = self.selection.numbers(sizes[..., 2::2], moved), sizes[..., 1::2]
            weight = into * layout.as_rows(of_a[..., :count])
        b, total = added(layout.every_second(state.h, 1), own, merging, weight, layout)
        others = torch.ones_like(total[..., :alone])  # coremltools takes slices of constant ones for integers
        if sizes is not None:
            others = torch.cat([sizes[..., :1], of_a[..., count:]], dim=-1)
        state.h = layout.join([layout.first(state.h, 1), staying, b])
        state.sizes = torch.cat([others, total], dim=-1)
