"""Token merging as it is defined, token by token (ToMe, Bolya et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from morvit_deploy.model import decisions
from morvit_deploy.model.trace import Decision, Routing, Trace

if TYPE_CHECKING:
    from morvit_deploy.model.reference import MoRViT


@dataclass(frozen=True)
class Tokens:
    """The tokens between two steps. Each stands for patches, and has the number of one of them; CLS is first."""

    h: Tensor  # (n, dim) states
    sizes: Tensor  # (n,) how many tokens each is the mean of
    numbers: Tensor  # (n,) patch numbers, -1 for CLS


def merged(model: MoRViT, h: Tensor, trace: Trace, chosen: Routing) -> tuple[Tensor, Tensor]:
    """Run h (N+1, dim) through all layers, merging tokens at those of `reduction`.

    A patch's depth is the number of steps after which its token still goes on by itself: it has not merged into
    another one, though others may have merged into it.
    """
    reduction, capacity = model.config.reduction, chosen.capacity or model.config.capacity
    assert reduction is not None and capacity is not None
    tokens = Tokens(h, h.new_ones(len(h)), torch.arange(-1, len(h) - 1))
    depth = torch.zeros(len(h), dtype=torch.long)
    for layer, (_, block) in enumerate(model.layers()):
        bias = tokens.sizes.log() if reduction.proportional else None
        attended, _, keys = block.attended(tokens.h, bias)
        tokens = Tokens(attended, tokens.sizes, tokens.numbers)
        step = reduction.layers.index(layer) if layer in reduction.layers else None
        if step is not None:
            tokens, decision = merge(tokens, keys.mean(dim=-3), len(tokens.h) - 1 - capacity[step], chosen)
            trace.decisions.append(decision)
            depth[tokens.numbers + 1] += 1
        tokens = Tokens(block.fed(tokens.h), tokens.sizes, tokens.numbers)
        trace.states[f"layer{layer + 1}" if step is None else f"step{step + 1}"] = tokens.h
    return tokens.h, depth


def merge(tokens: Tokens, metric: Tensor, r: int, chosen: Routing) -> tuple[Tokens, Decision]:
    """Merge r of the tokens of side A into their most similar ones of side B.

    Similar are tokens whose metrics (n, width), the mean keys of their heads, point in the same direction. A are the
    tokens at even positions and B those at odd ones; CLS, at position 0, never merges. Then the rest of A goes on, in
    its order, and B behind it.
    """
    metric = metric / metric.norm(dim=-1, keepdim=True)
    a, b = torch.arange(2, len(metric), 2), torch.arange(1, len(metric), 2)
    similarity = metric[a] @ metric[b].T
    partners = decisions.first_argmax(similarity)
    best = similarity.gather(1, partners[:, None])[:, 0]
    if chosen.shuffle is not None:  # a baseline: tokens merge at random, each into its best partner
        best = best[torch.randperm(len(best), generator=chosen.shuffle)]
    merging = decisions.top_k(best, r)
    sums, sizes = tokens.h * tokens.sizes[:, None], tokens.sizes.clone()
    into = tokens.numbers.clone()
    for i in merging.tolist():
        source, target = int(a[i]), int(b[partners[i]])
        sums[target] += sums[source]
        sizes[target] += sizes[source]
        into[source] = tokens.numbers[target]
    staying = torch.ones(len(a), dtype=torch.bool)
    staying[merging] = False
    rows = torch.cat([torch.zeros(1, dtype=torch.long), a[staying], b])
    decision = Decision(
        candidates=tokens.numbers[1:],
        kept=tokens.numbers[rows[1:]],
        router_logits=_inclinations(best, len(metric)),
        margin=min(decisions.top_k_margin(best, r), decisions.argmax_margin(similarity[merging])),
        wanted=len(rows) - 1,
        into=into[1:],
    )
    return Tokens(sums[rows] / sizes[rows, None], sizes[rows], tokens.numbers[rows]), decision


def _inclinations(best: Tensor, tokens: int) -> Tensor:
    """Return what each token but CLS goes on by itself by (tokens − 1,): minus its similarity to its partner.

    Side B, which always goes on, has the highest value of A.
    """
    stay = -best
    values = stay.max().repeat(tokens - 1)
    values[1::2] = stay
    return values


def groups_of(decisions: Sequence[Decision]) -> Tensor:
    """Return for each patch (N,) the number of the token that it is part of after an image's last step."""
    numbers = torch.arange(int(decisions[0].candidates.max()) + 1)
    for decision in decisions:
        assert decision.into is not None
        step = torch.arange(len(numbers))
        step[decision.candidates] = decision.into
        numbers = step[numbers]
    return numbers
