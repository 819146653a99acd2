"""Expert choice: each step's router selects among the active tokens; the state of a token that leaves is final."""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import cls_only
from morvit_deploy.graph.step import Carried, StaticRouting, TokenState
from morvit_deploy.model.config import Config
from morvit_deploy.model.routings.expert_choice import scores_read


class ExpertChoice(StaticRouting):
    """Routing `expert_choice` (paper §3.2, §3.4), by top-k or by thresholds (§5.3)."""

    @staticmethod
    def splits_cycle(config: Config, sorts: bool) -> bool:
        return config.attention_scope == "all"

    def begin(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """Run first, the steps before the first routed step, and that step's router."""
        if self.config.sharing == "middle_cycle":
            h = out["first"] = self.graph.block("first")(h)
        state = self.state(h)
        for step in range(self.lead):
            self.step(step, state, None, out)
        if not self.routed[self.lead]:
            return {"h": state.h}
        z = out[f"step{self.lead + 1}.router_logits"] = self.graph.router(self.lead)(state.h)
        return {"h": state.h, "z": z}

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Run the routed steps, setting aside the tokens that leave, then last (paper §3.2, §3.4)."""
        state = self.state(carried["h"])
        if self.thresholds is not None and self.options.with_depth:
            state.ran = torch.full(state.held.shape, self.lead, dtype=torch.int32)
        state.gone = [state.held[..., :0]] * self.lead
        for step in range(self.lead, len(self.capacity)):
            self.step(step, state, carried.get("z") if step == self.lead else None, out)
        if self.options.with_depth:
            out["depth"] = self.depths(state)
        if state.overflow is not None:
            out["overflow"] = state.overflow
        h = self.ended(state)
        return self.in_own_order(h, state) if self.graph.in_order else h

    def counts(self, carried: Carried) -> Tensor:
        """Return how many tokens run the first routed step, from which the bucket is predicted."""
        assert self.thresholds is not None
        threshold = self.thresholds[self.lead]
        assert threshold is not None
        scores = self.layout.vector(self.layout.patch_scores(carried["z"]))
        return (scores >= self.selection.threshold(threshold)).sum(dim=-1, keepdim=True)

    def step(self, step: int, state: TokenState, z: Tensor | None, out: dict[str, Tensor]) -> None:
        """One step of the paper: the router's selection, the cycle on the running tokens, the gate (§3.2, §3.4).

        z (…, 1 + held, 1) are the router logits if the stem has computed them.
        """
        if z is None and self.routed[step]:
            z = out[f"step{step + 1}.router_logits"] = self.graph.router(step)(state.h)
        threshold = None if self.thresholds is None else self.thresholds[step]
        if z is None:
            state.gone.append(state.held[..., :0])
        elif threshold is None:
            z = self._choose_top_k(step, z, state, out)
        else:
            z = self._choose_by_threshold(step, threshold, z, state, out)
        if state.ran is not None:
            state.ran = state.ran + (1 if state.runs is None else state.runs.to(torch.int32))
        state.h = out[f"step{step + 1}.state"] = self._gated_step(step, state, z)

    def _choose_top_k(self, step: int, z: Tensor, state: TokenState, out: dict[str, Tensor]) -> Tensor:
        """Hold the best tokens (paper §3.2); returns the router logits (…, 1 + capacity, 1) of the held tokens."""
        capacity, candidates = self.capacity[step], self.layout.count(state.h) - 1
        if self.thresholds is not None or capacity == candidates:  # no token leaves
            state.gone.append(state.held[..., :0])
            return z
        ranked = self._hold_best(step, capacity, self.layout.patch_scores(z), state, out)
        if ranked is None:
            return z  # CLS is the first of z either way
        return self.layout.with_cls_score(z, self.selection.leading(ranked, capacity))

    def _choose_by_threshold(
        self, step: int, threshold: float, z: Tensor, state: TokenState, out: dict[str, Tensor]
    ) -> Tensor:
        """Hold the tokens that reach the threshold (paper §5.3), padded to the step's capacity.

        Returns the router logits (…, 1 + capacity, 1) of the held tokens.
        """
        threshold = self.selection.threshold(threshold)
        scores = self.layout.patch_scores(z)
        if state.runs is not None:  # a token that has left does not return
            scores = self.selection.where(state.runs, scores, self.selection.lowest)
        going = scores >= threshold
        capacity, candidates = self.width(step, going), self.layout.count(state.h) - 1
        if capacity == candidates:
            state.runs = going
            state.gone.append(state.held[..., :0])
            if state.overflow is None:
                state.overflow = going.sum(dim=-1) > capacity
        else:
            ranked = self._hold_best(step, capacity, scores, state, out)
            runs, exceeded = self._reached(ranked, threshold, going, capacity)
            state.overflow = (
                exceeded if state.overflow is None else torch.logical_or(state.overflow, exceeded)
            )
            if ranked is None or runs is None:
                state.runs = None
                return z  # only the logit of CLS, the first, is read
            state.runs = runs
            z = self.layout.with_cls_score(z, self.selection.leading(ranked, capacity))
        out[f"step{step + 1}.runs"] = state.runs
        return z

    def _reached(
        self, ranked: Tensor | None, threshold: float, going: Tensor, capacity: int
    ) -> tuple[Tensor | None, Tensor]:
        """Return which of the held tokens run (…, capacity), and whether more than these should (…).

        ranked (…, n) are the scores of the candidates, best first; None if no later operation reads who runs.
        """
        if ranked is not None and ranked.shape[-1] > capacity and not self.selection.frugal:
            reached = ranked >= threshold  # one comparison: the best of the leavers shows an overflow
            return reached[..., :capacity], reached[..., capacity]
        runs = None if ranked is None else self.selection.leading(ranked, capacity) >= threshold
        return runs, going.sum(dim=-1) > capacity

    def width(self, step: int, going: Tensor) -> int:
        """Number of patch tokens to hold at a step (from 0); going (…, held) marks those that should run it."""
        return self.capacity[step]

    def _hold_best(
        self, step: int, capacity: int, scores: Tensor, state: TokenState, out: dict[str, Tensor]
    ) -> Tensor | None:
        """Hold CLS and the best `capacity` tokens by scores (…, candidates).

        Returns the ranked scores, those of the held tokens first, None if no later operation reads them.
        """
        # the order of the leaving tokens is read, too
        everyone = self._keeps_leavers() or self._numbered()
        ranked = self.layout.count(state.h) - 1 if everyone else capacity
        read = self._scores_read(step)
        values, order = self.selection.rank(scores, ranked, capacity if read else 0)
        out[f"step{step + 1}.order"] = order
        self._set_aside(order, capacity, state)
        return values if read else None

    def _scores_read(self, step: int) -> bool:
        """Whether the scores of the held tokens are kept."""
        final, under, options = step == len(self.capacity) - 1, self.thresholds is not None, self.options
        read = scores_read(self.config, final, under, options.with_depth, self.graph.cls_alone)
        return read or not self.selection.frugal

    def _set_aside(self, order: Tensor, capacity: int, state: TokenState) -> None:
        """Hold CLS and the first `capacity` tokens of an order, and set the others aside."""
        state.h, leavers = self.selection.partition(state.h, order, capacity, self._keeps_leavers())
        if leavers is not None:
            state.left.append(leavers)
        if self._numbered():
            numbers = self.selection.numbers(state.held, order)
            state.held = numbers[..., :capacity]
            state.gone.append(numbers[..., capacity:])
            if state.ran is not None:
                ran = self.selection.numbers(state.ran, order)
                state.ran = ran[..., :capacity]
                state.gone_ran.append(ran[..., capacity:])

    def _numbered(self) -> bool:
        """Whether the numbers of tokens are read later."""
        return self.options.with_depth or self.graph.in_order

    def _keeps_leavers(self) -> bool:
        """Whether the states of tokens that leave are read later, by a last block, as keys or by the head."""
        read = self.config.sharing == "middle_cycle" or self.config.attention_scope == "all"
        return read or self.graph.reads_all

    def _gated_step(self, step: int, state: TokenState, z: Tensor | None) -> Tensor:
        """Apply the cycle to the held tokens, then the gate; to CLS alone if no other state is read later."""
        after = state.h
        for i in range(self.config.cycle_depth):
            final = step == len(self.capacity) - 1 and i == self.config.cycle_depth - 1
            alone = final and self.config.sharing != "middle_cycle" and self.graph.cls_alone
            before, after = after, self.attend(f"cycle.{i}", after, state, alone)
            if i < self.config.cycle_depth - 1:  # the next block may read padding as keys
                after = self.only_running(before, after, state.runs)
        rows = self.layout.count(after)
        h = self.layout.first(state.h, rows)
        gated = None if z is None else self.layout.first(z, rows)
        return self.gate(h, after, gated, state.runs)

    def ended(self, state: TokenState) -> Tensor:
        """Return the final states: CLS first, and all others in any order if they are read."""
        if self.config.sharing == "middle_cycle":
            return self.last(state)
        return self.layout.join([state.h, *state.left]) if self.graph.reads_all else state.h

    def last(self, state: TokenState) -> Tensor:
        """Apply the last block to all tokens: CLS first, the others in any order."""
        h = self.layout.join([state.h, *state.left])
        last = self.graph.block("last")
        return cls_only(last, h, layout=self.layout) if self.graph.cls_alone else last(h)
