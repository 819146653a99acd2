"""The state of tokens between steps, and what the routings share: attention over held tokens, and the gate."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from morvit_deploy.graph.maths.rewrites import KV, cls_only, frozen_keys
from morvit_deploy.graph.weights import StaticWeights
from morvit_deploy.model import decisions
from morvit_deploy.model.config import Config

Carried = dict[str, Tensor]  # the stem's outputs for the trunk


@dataclass
class TokenState:
    """The tokens between two steps. Held tokens are in the graph's tensors; those that do not run are padding."""

    h: Tensor  # (…, 1 + held, dim) states of CLS and the held tokens
    held: Tensor  # (…, held) their patch numbers, in the order of h
    runs: Tensor | None = None  # (…, held) which of them run; None: all
    overflow: Tensor | None = None  # (…) whether a capacity excluded a token that should run
    left: list[Tensor] = field(default_factory=list)  # states of the tokens that left, a tensor for each step
    gone: list[Tensor] = field(default_factory=list)  # their patch numbers, for the depth output
    ran: Tensor | None = None  # (…, held) steps that each held token ran, with thresholds
    gone_ran: list[Tensor] = field(default_factory=list)  # the same for the tokens that left
    sorted: bool = False  # the held tokens are not in their own order from the start
    # block -> keys of the first n tensors of `left`, and n
    keyed: dict[str, tuple[KV | None, int]] = field(default_factory=dict)


class StaticRouting:
    """Base of the routings' static code, over the weights and shapes of a graph.

    The stem is common to all buckets and ends where the bucket is determined; the trunk belongs to one bucket.
    """

    def __init__(self, graph: StaticWeights) -> None:
        self.graph, self.config, self.options = graph, graph.config, graph.options
        self.capacity, self.thresholds, self.lead, self.routed = (
            graph.capacity, graph.thresholds, graph.lead, graph.routed
        )  # fmt: skip
        self.layout, self.selection = graph.layout, graph.selection

    @staticmethod
    def splits_cycle(config: Config, sorts: bool) -> bool:
        """Whether blocks of the cycle have fewer queries than keys; `sorts`: a bucket holds fewer tokens than all."""
        return False

    def begin(self, h: Tensor, out: dict[str, Tensor]) -> Carried:
        """Run the rest of the stem on embedded tokens h (…, 1 + N, dim)."""
        return {"h": h}

    def finish(self, carried: Carried, out: dict[str, Tensor]) -> Tensor:
        """Run the trunk; returns states (…, n, dim): CLS first, and all others if they are read.

        For the output tokens these are the patches alone, in their own order (`graph.in_order`).
        """
        raise NotImplementedError

    def counts(self, carried: Carried) -> Tensor:
        """Return the token counts that determine the bucket, int64 (…, steps), from the stem's outputs."""
        raise NotImplementedError(f"routing {self.config.routing!r} has one bucket")

    def in_own_order(self, h: Tensor, state: TokenState) -> Tensor:
        """Return the patches of h (…, 1 + N, dim) in their own order: one gather.

        h are the held tokens after CLS, then those that left.
        """
        groups = [state.held, *(group for group in state.gone if group.shape[-1])]
        if len(groups) == 1 and not state.sorted:
            return self.layout.beyond(h, 1)
        numbers = groups[0] if len(groups) == 1 else torch.cat(groups, dim=-1)
        return self.selection.restored_patches(h, numbers)

    # parts of a step -------------------------------------------------------------------------------------------

    def state(self, h: Tensor) -> TokenState:
        """Return the initial state: all tokens are held."""
        return TokenState(h, self.selection.places(h, self.config.num_patches))

    def depths(self, state: TokenState) -> Tensor:
        """Return the number of steps that each patch token ran (…, N), in the original order of the tokens."""
        groups = [*state.gone, state.held]
        present = [group for group in groups if group.shape[-1]]
        if len(present) == 1:  # no token has moved
            everyone = torch.full_like(present[0], len(state.gone), dtype=torch.int32)
            return everyone if state.ran is None else state.ran
        numbers = torch.cat(present, dim=-1)
        if state.ran is not None:
            return self.selection.back(torch.cat([*state.gone_ran, state.ran], dim=-1), numbers)
        steps = [step for step, group in enumerate(groups) for _ in range(group.shape[-1])]
        return self.selection.back_from(torch.tensor(steps, dtype=torch.int32), numbers)

    def gate(self, h: Tensor, after: Tensor, z: Tensor | None, runs: Tensor | None = None) -> Tensor:
        """Return the gated update of h (…, n, dim).

        `after` is the cycle's output, z (…, n, 1) the router logits, and `runs` marks the tokens that run.
        """
        if self.config.gate == "hard":
            return self.only_running(h, after, runs)
        assert self.config.router is not None and z is not None
        g = decisions.score(z, self.config.router.activation, self.config.router.alpha)
        if runs is not None and self.layout.count(g) > 1:
            g = self.selection.where(self._running(runs), g, 0.0)  # the state of padding is unchanged
        return h + g * (after if self.config.gate == "block" else after - h)

    def only_running(self, before: Tensor, after: Tensor, runs: Tensor | None) -> Tensor:
        """Return `after` (…, n, dim), with the previous state for padding."""
        if runs is None or self.layout.count(after) == 1:
            return after
        return torch.where(self._running(runs), after, before)

    def _running(self, runs: Tensor) -> Tensor:
        """Whether CLS and each held token run, broadcast over the channels of a state."""
        return self.layout.spread(self.selection.with_cls(runs))

    def attend(self, name: str, x: Tensor, state: TokenState, alone: bool) -> Tensor:
        """Apply block `name` to x, or to CLS alone; with scope `all`, tokens that have left are keys too."""
        block = self.graph.block(name)
        if alone and block.unformed and state.left:  # a block that is applied once has no keys to carry
            x = self.layout.join([x, *state.left])
            return cls_only(block, x, layout=self.layout)
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
