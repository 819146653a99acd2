"""Expert choice: at each step a router chooses among the tokens still active; who leaves stands still for good."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import cls_only
from morvit_deploy.graph.step import Carried, StaticGraph, Walk
from morvit_deploy.model.macs import scores_read


class ExpertChoice(StaticGraph):
    """The walk of `expert_choice` (paper §3.2, §3.4), by top-k or under thresholds (§5.3)."""

    def _lead_in(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """first, the steps before the first routed one, and that one's router."""
        if self.config.sharing == "middle_cycle":
            h = out["first"] = self._block("first")(h)
        walk = self._walk(h)
        for step in range(self.lead):
            self._step(step, walk, None, out)
        if not self.routed[self.lead]:
            return {"h": walk.h}
        z = out[f"step{self.lead + 1}.router_logits"] = self._router(self.lead)(walk.h)
        return {"h": walk.h, "z": z}

    def _recursion(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """The routed steps with their leavers set aside, then last (paper §3.2, §3.4)."""
        walk = self._walk(carried["h"])
        if self.thresholds is not None and self.options.with_depth:
            walk.ran = torch.full(walk.held.shape, self.lead, dtype=torch.int32)
        walk.gone = [walk.held[..., :0]] * self.lead
        for step in range(self.lead, len(self.capacity)):
            self._step(step, walk, carried.get("z") if step == self.lead else None, out)
        if self.options.with_depth:
            out["depth"] = self._depth_output(walk)
        if walk.overflow is not None:
            out["overflow"] = walk.overflow
        return self._last(walk) if self.config.sharing == "middle_cycle" else walk.h

    def _step(self, step: int, walk: Walk, z: Tensor | None, out: dict[str, Tensor]) -> None:
        """One routed step; z (…, 1 + held, 1) are its router logits where the stem has computed them."""
        if z is None and self.routed[step]:
            z = out[f"step{step + 1}.router_logits"] = self._router(step)(walk.h)
        threshold = None if self.thresholds is None else self.thresholds[step]
        if threshold is not None:
            assert z is not None
            z = self._route_by_threshold(step, threshold, z, walk, out)
        elif z is not None:
            z = self._route(step, z, walk, out)
        else:
            walk.gone.append(walk.held[..., :0])
        if walk.ran is not None:
            walk.ran = walk.ran + (1 if walk.runs is None else walk.runs.to(torch.int32))
        walk.h = out[f"step{step + 1}.state"] = self._gated_step(step, walk, z)

    def _route(self, step: int, z: Tensor, walk: Walk, out: dict[str, Tensor]) -> Tensor:
        """Set aside who leaves before this step; the router logits (…, 1 + capacity, 1) of who runs it."""
        capacity, candidates = self._capacity(step, None), self.layout.count(walk.h) - 1
        if self.thresholds is not None or capacity == candidates:  # nobody leaves: nothing to route
            walk.gone.append(walk.held[..., :0])
            return z
        read = self._scores_read(step)
        scores, needed = self.layout.patch_scores(z), self._ranked(walk, capacity)
        values, order = self.selection.rank(scores, needed, capacity if read else 0)
        out[f"step{step + 1}.order"] = order
        self._set_aside(order, capacity, walk)
        if not read:
            return z  # CLS is the first here too
        return self.layout.with_cls_score(z, self.selection.leading(values, capacity))

    def _route_by_threshold(
        self, step: int, threshold: float, z: Tensor, walk: Walk, out: dict[str, Tensor]
    ) -> Tensor:
        """Hold this step's capacity: first who reaches the threshold (paper §5.3), then pads.

        Returns the router logits (…, 1 + capacity, 1) of who is held.
        """
        threshold = self.selection.threshold(threshold)
        scores = self.layout.patch_scores(z)
        going = scores >= threshold
        if walk.runs is not None:  # a token that left never returns
            going = torch.logical_and(going, walk.runs)
            scores = self.selection.where(walk.runs, scores, self.selection.lowest)
        capacity, candidates = self._capacity(step, going), self.layout.count(walk.h) - 1
        if walk.overflow is None:
            walk.overflow = going.sum(dim=-1) > capacity
        elif capacity < candidates:
            walk.overflow = torch.logical_or(walk.overflow, going.sum(dim=-1) > capacity)
        if capacity == candidates:
            walk.runs = going
            walk.gone.append(walk.held[..., :0])
        else:
            needed, read = self._ranked(walk, capacity), self._scores_read(step)
            values, order = self.selection.rank(scores, needed, capacity if read else 0)
            out[f"step{step + 1}.order"] = order
            self._set_aside(order, capacity, walk)
            if not read:
                walk.runs = None
                return z  # CLS is the first here too
            walk.runs = self.selection.leading(values, capacity) >= threshold
            z = self.layout.with_cls_score(z, self.selection.leading(values, capacity))
        out[f"step{step + 1}.runs"] = walk.runs
        return z

    def _scores_read(self, step: int) -> bool:
        """Are the scores of the tokens that the step holds taken along?"""
        final, under, options = step == len(self.capacity) - 1, self.thresholds is not None, self.options
        read = scores_read(self.config, final, under, options.with_depth, options.cls_only)
        return read or not self.selection.frugal

    def _ranked(self, walk: Walk, capacity: int) -> int:
        """How many of the candidates are put in order: all, where those who leave are still asked for."""
        everyone = self._keeps_leavers() or self.options.with_depth
        return self.layout.count(walk.h) - 1 if everyone else capacity

    def _set_aside(self, order: Tensor, capacity: int, walk: Walk) -> None:
        """Keep CLS and the first `capacity` of an order; the others leave what is held."""
        walk.h, leavers = self.selection.partition(walk.h, order, capacity, self._keeps_leavers())
        if leavers is not None:
            walk.left.append(leavers)
        if self.options.with_depth:
            numbers = self.selection.numbers(walk.held, order)
            walk.held = numbers[..., :capacity]
            walk.gone.append(numbers[..., capacity:])
            if walk.ran is not None:
                ran = self.selection.numbers(walk.ran, order)
                walk.ran = ran[..., :capacity]
                walk.gone_ran.append(ran[..., capacity:])

    def _keeps_leavers(self) -> bool:
        """Without a last block, and unless they stay keys, those who leave feed nothing."""
        return self.config.sharing == "middle_cycle" or self.config.attention_scope == "all"

    def _gated_step(self, step: int, walk: Walk, z: Tensor | None) -> Tensor:
        """The cycle on the running tokens, then the gate; CLS alone where nothing else is read again."""
        after = walk.h
        for i in range(self.config.cycle_depth):
            final = step == len(self.capacity) - 1 and i == self.config.cycle_depth - 1
            alone = final and self.config.sharing != "middle_cycle" and self.options.cls_only
            before, after = after, self._attend(f"cycle.{i}", after, walk, alone)
            if i < self.config.cycle_depth - 1:  # the next block may read the pads as keys
                after = self._only_running(before, after, walk.runs)
        rows = self.layout.count(after)
        h = self.layout.first(walk.h, rows)
        gated = None if z is None else self.layout.first(z, rows)
        return self._gate(h, after, gated, walk.runs)

    def _last(self, walk: Walk) -> Tensor:
        """The last block over all tokens, in any order: CLS first, leavers at the end."""
        h = self.layout.join([walk.h, *walk.left])
        last = self._block("last")
        return cls_only(last, h, layout=self.layout) if self.options.cls_only else last(h)

    def _depth_output(self, walk: Walk) -> Tensor:
        """Steps that each patch token ran (…, N), in the tokens' own order."""
        groups = [*walk.gone, walk.held]
        present = [group for group in groups if group.shape[-1]]
        if len(present) == 1:  # nobody has moved
            everyone = torch.full_like(present[0], len(walk.gone), dtype=torch.int32)
            return everyone if walk.ran is None else walk.ran
        numbers = torch.cat(present, dim=-1)
        if walk.ran is not None:
            return self.selection.back(torch.cat([*walk.gone_ran, walk.ran], dim=-1), numbers)
        steps = [step for step, group in enumerate(groups) for _ in range(group.shape[-1])]
        return self.selection.back_from(torch.tensor(steps, dtype=torch.int32), numbers)
