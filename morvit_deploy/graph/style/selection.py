"""How tokens are ranked and taken by top-k and gathers; by products instead, see `one_hot`.

An order says which tokens, best first. Only the selection that made it reads it: here it is indices (…, k).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from morvit_deploy.graph.maths.dispatch import key_mask, sort_by_depth
from morvit_deploy.graph.maths.layouts import BSD, RowLayout
from morvit_deploy.graph.maths.rewrites import partition, partition_all, rank, take

LOWEST = -65504.0  # fp16's lowest: the score of tokens that have left; infinity times zero is not a number
HIDDEN = -3e4  # added to a hidden key's attention logit: e^-30000 is zero, and logits have room below 65504
HIGHEST = 6e4  # of a threshold: above every router logit, and a number in fp16


class Gathers:
    """Top-k and a gather for each group of tokens, batched or for one image, in rows."""

    lowest = float("-inf")  # the score of a token that has left
    frugal = False  # top-k returns its scores, whether anyone reads them or not
    most_tokens: int | None = None  # no limit

    def __init__(self, layout: RowLayout = BSD, dtype: torch.dtype = torch.float32) -> None:
        self.layout, self.dtype = layout, dtype  # of the states

    def threshold(self, threshold: float) -> float:
        """The threshold that scores are compared with."""
        return threshold

    def places(self, h: Tensor, n: int) -> Tensor:
        """Token numbers 0 … n − 1, in the shape of numbers for h."""
        return self.layout.places(h, n)

    def with_cls(self, runs: Tensor) -> Tensor:
        """(…, held) to (…, 1 + held): CLS always runs."""
        return nn.functional.pad(runs, (1, 0), value=True)

    def where(self, condition: Tensor, value: Tensor, other: float) -> Tensor:
        """The value where the condition holds, elsewhere a number."""
        return torch.where(condition, value, other)

    def mask(self, runs: Tensor, dtype: torch.dtype) -> Tensor:
        """A term for attention logits that hides the keys that do not run; runs (…, keys)."""
        return key_mask(runs, dtype)

    def rank(self, scores: Tensor, needed: int, valued: int) -> tuple[Tensor, Tensor]:
        """The `needed` highest scores (…, n), best first, and their order; at least `valued` scores are returned."""
        return rank(scores, needed)

    def leading(self, numbers: Tensor, n: int) -> Tensor:
        """The first n of numbers (…, tokens)."""
        return numbers[..., :n]

    def by_depth(self, depth: Tensor) -> Tensor:
        """The order of all tokens by depth (…, N), deepest first, on a tie the lower position first."""
        return sort_by_depth(depth)

    def numbers(self, values: Tensor, order: Tensor) -> Tensor:
        """Numbers (…, n) of the tokens in an order."""
        return take(values[..., None], order)[..., 0]

    def rows(self, h: Tensor, order: Tensor) -> Tensor:
        """States of the tokens in an order over all tokens of h."""
        return take(h, order)

    def partition(self, h: Tensor, order: Tensor, k: int, both: bool) -> tuple[Tensor, Tensor | None]:
        """CLS and the first k of an order of the others; with `both` also the rest, if there are any."""
        return partition(h, order if both else order[..., :k], k)

    def partition_all(self, h: Tensor, order: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The first k of an order of all tokens, and the rest."""
        return partition_all(h, order, k)

    def back(self, values: Tensor, numbers: Tensor) -> Tensor:
        """Values (…, n) of the tokens that have these numbers, a permutation, in the order of the numbers."""
        return take(values[..., None], torch.argsort(numbers, dim=-1))[..., 0]

    def back_from(self, values: Tensor, numbers: Tensor) -> Tensor:
        """The same of values (n,) that are the same for every image."""
        return values[torch.argsort(numbers, dim=-1)]

    def lowest_number(self, numbers: Tensor) -> Tensor:
        """An order of one token: where number 0 is."""
        return numbers[..., None].argmin(dim=-2)  # (…, 1); TensorRT takes no argmin of a vector


class OneGather(Gathers):
    """Top-k for one image: all that is taken at a step in one gather, then parts of it.

    A converter writes several operations for each index sum, and a gather may move data between processors.
    """

    lowest, frugal = LOWEST, True

    def threshold(self, threshold: float) -> float:
        return max(-HIGHEST, min(HIGHEST, threshold))

    def with_cls(self, runs: Tensor) -> Tensor:
        return torch.cat([torch.full((*runs.shape[:-1], 1), True), runs], dim=-1)

    def where(self, condition: Tensor, value: Tensor, other: float) -> Tensor:
        return torch.where(condition, value, torch.full((1,), other, dtype=value.dtype))

    def mask(self, runs: Tensor, dtype: torch.dtype) -> Tensor:
        return self.layout.keys(self.where(runs, torch.zeros(1, dtype=dtype), HIDDEN))

    def leading(self, numbers: Tensor, n: int) -> Tensor:
        return numbers if n == numbers.shape[-1] else numbers[..., :n]

    def by_depth(self, depth: Tensor) -> Tensor:
        tokens = depth.shape[-1]
        keys = depth * tokens - torch.arange(tokens)  # whole numbers: in fp16 they would end at 2048
        return torch.topk(keys, tokens, dim=-1).indices

    def numbers(self, values: Tensor, order: Tensor) -> Tensor:
        return values.index_select(-1, order.flatten())

    def rows(self, h: Tensor, order: Tensor) -> Tensor:
        return h.index_select(self.layout.axis, order.flatten())

    def partition(self, h: Tensor, order: Tensor, k: int, both: bool) -> tuple[Tensor, Tensor | None]:
        order = order if both or k == order.shape[-1] else order[..., :k]
        ranked = self.rows(h, torch.cat([torch.arange(1), order.flatten() + 1]))  # CLS is row 0
        return self._cut(ranked, 1 + k)

    def partition_all(self, h: Tensor, order: Tensor, k: int) -> tuple[Tensor, Tensor]:
        ranked = self.rows(h, order)
        return self.layout.first(ranked, k), self.layout.beyond(ranked, k)

    def back(self, values: Tensor, numbers: Tensor) -> Tensor:
        return self.numbers(values, torch.argsort(numbers, dim=-1))

    def back_from(self, values: Tensor, numbers: Tensor) -> Tensor:
        return self.back(values.expand(numbers.shape), numbers)

    def lowest_number(self, numbers: Tensor) -> Tensor:
        return numbers.argmin(dim=-1, keepdim=True)

    def _cut(self, ranked: Tensor, k: int) -> tuple[Tensor, Tensor | None]:
        """The first k, and the rest if there are any."""
        if k == self.layout.count(ranked):
            return ranked, None
        return self.layout.first(ranked, k), self.layout.beyond(ranked, k)
