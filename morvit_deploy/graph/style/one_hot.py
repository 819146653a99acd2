"""Selection without top-k and gathers: ranking by comparisons, selecting by products with one-hot rows.

Exact in any precision, because a one-hot product adds only zeros to the selected value.
"""

from __future__ import annotations

import torch
from torch import Tensor

from morvit_deploy.graph.maths.layouts import mixed
from morvit_deploy.graph.style.selection import OneGather


class OneHot(OneGather):
    """Selection for one image by pairwise comparisons and one-hot products.

    An order of k among n tokens is a 0/1 matrix (k, n), which is multiplied by the states (n, dim).
    """

    most_tokens = 2048  # token numbers and ranks are integers, which are exact in fp16 up to this

    def places(self, h: Tensor, n: int) -> Tensor:
        return self.layout.places(h, n).to(self.dtype)

    def rank(self, scores: Tensor, needed: int, valued: int) -> tuple[Tensor, Tensor]:
        order = self._order(self._ranks(scores), needed)
        if valued == 0:
            return scores[..., :0], order
        return self.numbers(scores, order if valued == needed else self._best(order, valued)), order

    def by_depth(self, depth: Tensor) -> Tensor:
        return self._order(self._ranks(depth.to(self.dtype)), depth.shape[-1])

    def highest_first(self, scores: Tensor, k: int) -> Tensor:
        n = scores.shape[-1]
        ranks = self._as_numbers(self._ranks(scores))
        places = torch.arange(n, dtype=self.dtype)
        keys = torch.where(ranks >= k, places, ranks - n)  # the k highest before all others
        return self._order(self._ranks(-keys), n)

    def best(self, order: Tensor, k: int) -> Tensor:
        return self._best(order, k)

    def numbers(self, values: Tensor, order: Tensor) -> Tensor:
        return (order @ values.to(self.dtype)[:, None])[:, 0]

    def rows(self, h: Tensor, order: Tensor) -> Tensor:
        return order @ h

    def partition(self, h: Tensor, order: Tensor, k: int, both: bool) -> tuple[Tensor, Tensor | None]:
        patches = self.rows(self.layout.beyond(h, 1), order if both else self._best(order, k))
        return self._cut(self.layout.join([self.layout.first(h, 1), patches]), 1 + k)

    def back(self, values: Tensor, numbers: Tensor) -> Tensor:
        return self.numbers(values, self._order(self._labels(numbers), numbers.shape[-1]))

    def restored(self, h: Tensor, numbers: Tensor) -> Tensor:
        return self.rows(h, self._order(self._labels(numbers), numbers.shape[-1]))

    def restored_patches(self, h: Tensor, numbers: Tensor) -> Tensor:
        return self.restored(self.layout.beyond(h, 1), numbers)

    def lowest_number(self, numbers: Tensor) -> Tensor:
        return self._order(self._labels(numbers), 1)

    def _ranks(self, scores: Tensor) -> Tensor:
        """Map scores (n,) to labels: the number of tokens that rank before each."""
        place = torch.arange(len(scores))
        ahead = outranks(scores[:, None], scores, earlier=place[:, None] < place)
        return ahead.to(self.dtype).sum(dim=0)

    def _labels(self, numbers: Tensor) -> Tensor:
        """Token numbers as labels."""
        return numbers

    def _order(self, labels: Tensor, k: int) -> Tensor:
        """Return the order (k, n) of the tokens with labels 0 … k − 1, from labels (n,)."""
        return (labels == torch.arange(k, dtype=self.dtype)[:, None]).to(self.dtype)

    def _as_numbers(self, labels: Tensor) -> Tensor:
        """Labels as numbers."""
        return labels

    def _best(self, order: Tensor, k: int) -> Tensor:
        """Return the first k tokens of an order."""
        return order if k == order.shape[0] else order[:k]


class OneHotChannels(OneHot):
    """The same with channels first: states (1, dim, 1, n) are multiplied by an order (1, n, 1, k)."""

    def numbers(self, values: Tensor, order: Tensor) -> Tensor:
        return mixed(values.to(self.dtype), order)

    def rows(self, h: Tensor, order: Tensor) -> Tensor:
        return mixed(h, order)

    def _as_numbers(self, labels: Tensor) -> Tensor:
        return labels.transpose(1, 3)

    def _ranks(self, scores: Tensor) -> Tensor:
        """Map scores (1, 1, 1, n) to labels (1, n, 1, 1)."""
        place = torch.arange(scores.shape[-1])
        earlier = (place < place[:, None])[:, None]  # (n, 1, n), the other token on the last axis
        ahead = outranks(scores, self._labels(scores), earlier)
        return ahead.to(self.dtype).sum(dim=-1, keepdim=True)

    def _labels(self, numbers: Tensor) -> Tensor:
        return numbers.transpose(1, 3)  # (1, n, 1, 1)

    def _order(self, labels: Tensor, k: int) -> Tensor:
        return (labels == torch.arange(k, dtype=self.dtype)).to(self.dtype)

    def _best(self, order: Tensor, k: int) -> Tensor:
        return order if k == order.shape[-1] else order[..., :k]


def outranks(other: Tensor, own: Tensor, earlier: Tensor) -> Tensor:
    """Whether the other token ranks before a token: it has a higher score, or an equal one and a lower position.

    `earlier` marks the others at a lower position.
    """
    return torch.where(earlier, other >= own, other > own)
