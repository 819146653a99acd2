"""Selection of tokens by top-k and gathers; `one_hot` selects by products instead.

An order lists tokens, best first. Its representation is private to a selection: here it is indices (…, k).
"""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.dispatch import key_mask, sort_by_depth
from morvit_deploy.graph.maths.layouts import BSD, RowLayout
from morvit_deploy.graph.maths.rewrites import inverse, partition, partition_all, rank, take, take_numbers

LOWEST = -65504.0  # score of tokens that have left: the lowest fp16 number, since infinity times zero is NaN
# added to a hidden key's attention logit: e^-30000 is zero, and the sum stays in the range of fp16
HIDDEN = -3e4
HIGHEST = 6e4  # largest threshold: above every router logit, and finite in fp16


class Gathers:
    """Selection by top-k and one gather per group of tokens, for any batch size, in layout bsd."""

    lowest = float("-inf")  # score of a token that has left
    frugal = False  # scores are returned even if no operation reads them
    most_tokens: int | None = None  # no limit

    def __init__(self, layout: RowLayout = BSD, dtype: torch.dtype = torch.float32) -> None:
        self.layout, self.dtype = layout, dtype

    def threshold(self, threshold: float) -> float:
        """Return the threshold in the range that scores can be compared in."""
        return threshold

    def places(self, h: Tensor, n: int) -> Tensor:
        """Return the token numbers 0 … n − 1 for each image of h."""
        return self.layout.places(h, n)

    def with_cls(self, runs: Tensor) -> Tensor:
        """Prepend CLS, which always runs, to runs (…, held)."""
        return torch.cat([torch.full((*runs.shape[:-1], 1), True), runs], dim=-1)

    def where(self, condition: Tensor, value: Tensor, other: float) -> Tensor:
        """Return `value` where the condition holds and the number `other` elsewhere."""
        return torch.where(condition, value, other)

    def mask(self, runs: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a mask to add to attention logits; runs (…, keys) is false for hidden keys."""
        return key_mask(runs, dtype)

    def rank(self, scores: Tensor, needed: int, valued: int) -> tuple[Tensor, Tensor]:
        """Return at least the `valued` highest scores (…, n), best first, and the order of the `needed` highest."""
        return rank(scores, needed)

    def leading(self, numbers: Tensor, n: int) -> Tensor:
        """Return the first n of numbers (…, tokens)."""
        return numbers[..., :n]

    def by_depth(self, depth: Tensor) -> Tensor:
        """Return the order of all tokens by depth (…, N), deepest first, ties by position."""
        return sort_by_depth(depth)

    def highest_first(self, scores: Tensor, k: int) -> Tensor:
        """Return an order of all scores (…, n): the k highest, best first, then the others by position."""
        n = scores.shape[-1]
        order = self.rank(scores, k, 0)[1]
        return order if k == n else torch.cat([order, self._others(order, n)], dim=-1)

    def best(self, order: Tensor, k: int) -> Tensor:
        """Return the first k tokens of an order."""
        return self.leading(order, k)

    def _others(self, order: Tensor, n: int) -> Tensor:
        """Return those of n positions that are not in an order (…, k), ascending."""
        keys = _later_if_taken(order, n).to(torch.float32)  # whole numbers below 2²⁴: exact
        return rank(keys, n - order.shape[-1])[1]

    def numbers(self, values: Tensor, order: Tensor) -> Tensor:
        """Select numbers (…, n) by an order."""
        return take_numbers(values, order)

    def rows(self, h: Tensor, order: Tensor) -> Tensor:
        """Select states by an order over all tokens of h."""
        return take(h, order)

    def partition(self, h: Tensor, order: Tensor, k: int, both: bool) -> tuple[Tensor, Tensor | None]:
        """Return CLS with the first k of an order of the others; with `both` also the remaining tokens, if any."""
        return partition(h, order if both else order[..., :k], k)

    def partition_all(self, h: Tensor, order: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Return the first k of an order of all tokens, and the remaining ones."""
        return partition_all(h, order, k)

    def back(self, values: Tensor, numbers: Tensor) -> Tensor:
        """Sort values (…, n) by the token numbers they belong to, which are a permutation."""
        return take_numbers(values, inverse(numbers))

    def back_from(self, values: Tensor, numbers: Tensor) -> Tensor:
        """The same for values (n,) that are equal for every image."""
        return values[inverse(numbers)]

    def restored(self, h: Tensor, numbers: Tensor) -> Tensor:
        """Sort states by the token numbers (…, tokens) they belong to, which are a permutation: one gather."""
        return self.rows(h, inverse(numbers))

    def restored_patches(self, h: Tensor, numbers: Tensor) -> Tensor:
        """Sort the states after CLS by their numbers (…, N), and leave CLS out: one gather."""
        return self.rows(h, inverse(numbers) + 1)

    def lowest_number(self, numbers: Tensor) -> Tensor:
        """Return an order of one token: the position of number 0."""
        return numbers[..., None].argmin(dim=-2)  # (…, 1); TensorRT does not support argmin of a vector


class OneGather(Gathers):
    """Selection by top-k for one image, with one gather per step, which is then sliced.

    Core ML's converter emits several operations for each index sum, and a gather may move data between processors.
    """

    lowest, frugal = LOWEST, True

    def threshold(self, threshold: float) -> float:
        return max(-HIGHEST, min(HIGHEST, threshold))

    def where(self, condition: Tensor, value: Tensor, other: float) -> Tensor:
        return torch.where(condition, value, torch.full((1,), other, dtype=value.dtype))

    def mask(self, runs: Tensor, dtype: torch.dtype) -> Tensor:
        return self.layout.keys(self.where(runs, torch.zeros(1, dtype=dtype), HIDDEN))

    def leading(self, numbers: Tensor, n: int) -> Tensor:
        return numbers if n == numbers.shape[-1] else numbers[..., :n]

    def by_depth(self, depth: Tensor) -> Tensor:
        tokens = depth.shape[-1]
        keys = depth * tokens - torch.arange(tokens)  # integers: fp16 would be exact only up to 2048
        return torch.topk(keys, tokens, dim=-1).indices

    def _others(self, order: Tensor, n: int) -> Tensor:
        return torch.topk(
            _later_if_taken(order, n), n - order.shape[-1], dim=-1
        ).indices  # integers, as above

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

    def restored(self, h: Tensor, numbers: Tensor) -> Tensor:
        return self.rows(h, torch.argsort(numbers, dim=-1))

    def restored_patches(self, h: Tensor, numbers: Tensor) -> Tensor:
        return self.rows(h, torch.argsort(numbers, dim=-1) + 1)

    def lowest_number(self, numbers: Tensor) -> Tensor:
        return numbers.argmin(dim=-1, keepdim=True)

    def _cut(self, ranked: Tensor, k: int) -> tuple[Tensor, Tensor | None]:
        """Return the first k tokens, and the remaining ones, if any."""
        if k == self.layout.count(ranked):
            return ranked, None
        return self.layout.first(ranked, k), self.layout.beyond(ranked, k)


def _later_if_taken(order: Tensor, n: int) -> Tensor:
    """Return whole numbers (…, n) that rank n positions: those outside an order (…, k) first, ascending."""
    places = torch.arange(n)
    taken = (order[..., None] == places).sum(dim=-2)
    return -places - n * taken
