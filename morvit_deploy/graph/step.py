"""One step of a static graph's tokens: who is held, who of them runs, how they meet a block, and the gate."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import KV, cls_only, frozen_keys
from morvit_deploy.graph.weights import StaticWeights
from morvit_deploy.model import decisions
from morvit_deploy.model.config import Config

Carried = dict[str, Tensor]  # what the stem hands to the trunk


@dataclass
class TokenState:
    """Where the tokens are between two steps."""

    h: Tensor  # (…, 1 + held, dim), CLS first: who is still held
    held: Tensor  # (…, held) their patch numbers, in the order of h
    runs: Tensor | None = None  # (…, held) who of them runs, the others are pads; None: all
    overflow: Tensor | None = None  # (…) did a capacity keep out a token that should run
    left: list[Tensor] = field(default_factory=list)  # states of those who left, a tensor for each step
    gone: list[Tensor] = field(default_factory=list)  # their patch numbers, for the depth output
    ran: Tensor | None = None  # (…, held) steps that each held token ran, where thresholds decide
    gone_ran: list[Tensor] = field(default_factory=list)  # the same of those who left
    keyed: dict[str, tuple[KV | None, int]] = field(
        default_factory=dict
    )  # block -> keys of the first n of left


class StaticRouting:
    """How a routing takes tokens through a static graph: a class for each, over the graph's weights.

    The stem ends where the bucket can be known, the trunk is the bucket's own.
    """

    def __init__(self, graph: StaticWeights) -> None:
        self.graph, self.config, self.options = graph, graph.config, graph.options
        self.capacity, self.thresholds, self.lead, self.routed = (
            graph.capacity, graph.thresholds, graph.lead, graph.routed
        )  # fmt: skip
        self.layout, self.selection = graph.layout, graph.selection

    @staticmethod
    def splits_cycle(config: Config, sorts: bool) -> bool:
        """Have blocks of the cycle fewer queries than keys? `sorts`: some bucket holds fewer tokens than all."""
        return False

    def begin(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """The stem, from embedded tokens h (…, 1 + N, dim) on."""
        return {"h": h}

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """The trunk: states (…, n, dim) of which the first is CLS's."""
        raise NotImplementedError

    def counts(self, carried: Carried) -> Tensor:
        """What the bucket is chosen by, from the stem alone: int64 (…, steps)."""
        raise NotImplementedError(f"routing {self.config.routing!r} has one bucket")

    # parts of a step -------------------------------------------------------------------------------------------

    def state(self, h: Tensor) -> TokenState:
        """Everyone is held, nobody has left."""
        return TokenState(h, self.selection.places(h, self.config.num_patches))

    def gate(self, h: Tensor, after: Tensor, z: Tensor | None, runs: Tensor | None = None) -> Tensor:
        """The gated update (…, n, dim) of h, given the cycle's output, the router logits (…, n, 1) and who runs."""
        if self.config.gate == "hard":
            return self.only_running(h, after, runs)
        assert self.config.router is not None and z is not None
        g = decisions.score(z, self.config.router.activation, self.config.router.alpha)
        if runs is not None and self.layout.count(g) > 1:
            g = self.selection.where(self._running(runs), g, 0.0)  # a pad's state stands still
        return h + g * (after if self.config.gate == "block" else after - h)

    def only_running(self, before: Tensor, after: Tensor, runs: Tensor | None) -> Tensor:
        """`after` (…, n, dim), where a pad keeps the state it had."""
        if runs is None or self.layout.count(after) == 1:
            return after
        return torch.where(self._running(runs), after, before)

    def _running(self, runs: Tensor) -> Tensor:
        """Who of CLS and those held runs, for each channel of a state."""
        return self.layout.spread(self.selection.with_cls(runs))

    def attend(self, name: str, x: Tensor, state: TokenState, alone: bool) -> Tensor:
        """Block `name` on x, or on its CLS alone; with scope `all`, those who left are keys too."""
        block = self.graph.block(name)
        if self.config.attention_scope == "active":
            runs = None if state.runs is None else self.selection.with_cls(state.runs)
            mask = None if runs is None else self.selection.mask(runs, x.dtype)
            return cls_only(block, x, mask, layout=self.layout) if alone else block(x, mask)
        if not state.left:
            return cls_only(block, x, layout=self.layout) if alone else block(x)
        carried, seen = state.keyed.get(name, (None, 0)) if self.options.frozen_keys else (None, 0)
        fresh = self.layout.join(state.left[seen:]) if state.left[seen:] else None
        queries = 1 if alone else self.layout.count(x)
        x, carried = frozen_keys(block, x, fresh, carried, queries, self.layout)
        state.keyed[name] = (carried, len(state.left))
        return x
