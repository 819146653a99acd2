"""How tokens are ranked and taken: by gathers of indices, or by products with one-hot rows.

An order says which tokens, best first: as indices (…, k), or as a matrix of one-hot rows; only the selection that
made it reads it. Both are exact in any precision: a one-hot product adds zeros to the one number it takes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from morvit_deploy.graph.maths.dispatch import key_mask, sort_by_depth
from morvit_deploy.graph.maths.layouts import BSD, RowLayout, mixed
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
        """Token numbers 0 … n − 1 that follow the tokens of h."""
        return self.layout.places(h, n)

    def with_cls(self, runs: Tensor) -> Tensor:
        """(…, held) to (…, 1 + held): CLS always runs."""
        return nn.functional.pad(runs, (1, 0), value=True)

    def where(self, condition: Tensor, value: Tensor, other: float) -> Tensor:
        """The value where the condition holds, elsewhere a number."""
        return torch.where(condition, value, other)

    def mask(self, runs: Tensor, dtype: torch.dtype) -> Tensor:
        """Added to attention logits: hides the keys that do not run, runs (…, keys)."""
        return key_mask(runs, dtype)

    def rank(self, scores: Tensor, needed: int, valued: int) -> tuple[Tensor, Tensor]:
        """The `needed` highest scores (…, n), best first, or at least the first `valued` of them; their order."""
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
        """CLS and the first k of an order of the others; with `both` also those behind, if there are any."""
        return partition(h, order if both else order[..., :k], k)

    def partition_all(self, h: Tensor, order: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The first k of an order of all tokens, and the rest."""
        return partition_all(h, order, k)

    def back(self, values: Tensor, numbers: Tensor) -> Tensor:
        """Values (…, n) of the tokens that have these numbers, a permutation, in the order of the numbers."""
        return take(values[..., None], torch.argsort(numbers, dim=-1))[..., 0]

    def back_from(self, values: Tensor, numbers: Tensor) -> Tensor:
        """The same of values (n,) that are alike for every image."""
        return values[torch.argsort(numbers, dim=-1)]

    def lowest_number(self, numbers: Tensor) -> Tensor:
        """The order of one: where number 0 stands."""
        return numbers[..., None].argmin(dim=-2)  # (…, 1); of a vector alone TensorRT takes no argmin


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
        """The first k, and those behind if there are any."""
        if k == self.layout.count(ranked):
            return ranked, None
        return self.layout.first(ranked, k), self.layout.beyond(ranked, k)


class OneHot(OneGather):
    """No top-k, no gather: ranks by comparing each with each, tokens by products with one-hot rows.

    For one image. An order of k among n tokens is a matrix of 0 and 1 (k, n), multiplied by the states (n, dim).
    """

    most_tokens = 2048  # token numbers and ranks are whole numbers, exact in fp16 up to here

    def places(self, h: Tensor, n: int) -> Tensor:
        return self.layout.places(h, n).to(self.dtype)

    def rank(self, scores: Tensor, needed: int, valued: int) -> tuple[Tensor, Tensor]:
        order = self._order(self._ranks(scores), needed)
        if valued == 0:
            return scores[..., :0], order
        return self.numbers(scores, order if valued == needed else self._best(order, valued)), order

    def by_depth(self, depth: Tensor) -> Tensor:
        return self._order(self._ranks(depth.to(self.dtype)), depth.shape[-1])

    def numbers(self, values: Tensor, order: Tensor) -> Tensor:
        return (order @ values.to(self.dtype)[:, None])[:, 0]

    def rows(self, h: Tensor, order: Tensor) -> Tensor:
        return order @ h

    def partition(self, h: Tensor, order: Tensor, k: int, both: bool) -> tuple[Tensor, Tensor | None]:
        patches = self.rows(self.layout.beyond(h, 1), order if both else self._best(order, k))
        return self._cut(self.layout.join([self.layout.first(h, 1), patches]), 1 + k)

    def back(self, values: Tensor, numbers: Tensor) -> Tensor:
        return self.numbers(values, self._order(self._labels(numbers), numbers.shape[-1]))

    def lowest_number(self, numbers: Tensor) -> Tensor:
        return self._order(self._labels(numbers), 1)

    def _ranks(self, scores: Tensor) -> Tensor:
        """Scores (n,) to labels: how many tokens stand before each."""
        place = torch.arange(len(scores))
        ahead = outranks(scores[:, None], scores, earlier=place[:, None] < place)
        return ahead.to(self.dtype).sum(dim=0)

    def _labels(self, numbers: Tensor) -> Tensor:
        """Numbers of tokens as labels."""
        return numbers

    def _order(self, labels: Tensor, k: int) -> Tensor:
        """The order (k, n) of the tokens that have the labels 0 … k − 1, labels (n,)."""
        return (labels == torch.arange(k, dtype=self.dtype)[:, None]).to(self.dtype)

    def _best(self, order: Tensor, k: int) -> Tensor:
        """The first k of an order."""
        return order if k == order.shape[0] else order[:k]


class OneHotChannels(OneHot):
    """The same where channels come first: states (1, dim, 1, n) are multiplied by an order (1, n, 1, k)."""

    def numbers(self, values: Tensor, order: Tensor) -> Tensor:
        return mixed(values.to(self.dtype), order)

    def rows(self, h: Tensor, order: Tensor) -> Tensor:
        return mixed(h, order)

    def _ranks(self, scores: Tensor) -> Tensor:
        """Scores (1, 1, 1, n) to labels (1, n, 1, 1)."""
        place = torch.arange(scores.shape[-1])
        earlier = (place < place[:, None])[:, None]  # (n, 1, n): of the token on the channel axis
        ahead = outranks(scores, self._labels(scores), earlier)
        return ahead.to(self.dtype).sum(dim=-1, keepdim=True)

    def _labels(self, numbers: Tensor) -> Tensor:
        return numbers.transpose(1, 3)  # (1, n, 1, 1)

    def _order(self, labels: Tensor, k: int) -> Tensor:
        return (labels == torch.arange(k, dtype=self.dtype)).to(self.dtype)

    def _best(self, order: Tensor, k: int) -> Tensor:
        return order if k == order.shape[-1] else order[..., :k]


def outranks(other: Tensor, own: Tensor, earlier: Tensor) -> Tensor:
    """Whether the other score ranks before one's own; `earlier` says that its position is the lower one.

    The higher score ranks first; of equal scores, that of the lower position.
    """
    return torch.where(earlier, other >= own, other > own)
