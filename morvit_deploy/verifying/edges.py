"""Constructs pictures at the bounds of buckets: exactly as many tokens as a capacity, and one more. No torch.

A bound that is off by one changes the results of such pictures only. They are blends of two pictures, one with fewer
tokens at a step and one with more, halved until the count is the wanted one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.model.plan import Plan

HALVINGS = (
    10  # of one pair of pictures; a pair differs by at most 255 levels, and blends of neighbors are equal
)
PAIRS = 3  # tried for one edge

# pictures uint8 (n, height, width, 3) -> tokens at each step (n, steps), and which are clear (n,)
Count = Callable[[Pixels], tuple[NDArray[np.int64], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Edge:
    """An exact number of tokens at one step, with no more at the others than `limits`."""

    bucket: int
    step: int
    tokens: int
    limits: tuple[int, ...]  # of every step

    def holds(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows of counts (n, steps) are at this edge."""
        at: NDArray[np.bool_] = (counts[:, self.step] == self.tokens) & (self.beyond(counts) == 0)
        return at

    def over(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows of counts (n, steps) have more tokens: at the step, or else at others."""
        at = counts[:, self.step]
        more: NDArray[np.bool_] = (at > self.tokens) | ((at == self.tokens) & (self.beyond(counts) > 0))
        return more

    def beyond(self, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many tokens too many each row of counts (n, steps) has at the other steps, (n,)."""
        others = np.delete(counts - np.array(self.limits), self.step, axis=1)
        excess: NDArray[np.int64] = np.maximum(others, 0).sum(axis=1)
        return excess


def edges_of(plan: Plan, patches: int) -> list[Edge]:
    """Return the edges of a plan's buckets, without those that no image can have.

    Two for each capacity at which tokens may leave, and two for each bound of the dispatch table.
    """
    return [
        edge for edge in dict.fromkeys(_edges(plan, patches)) if 0 <= edge.tokens <= edge.limits[edge.step]
    ]


def _edges(plan: Plan, patches: int) -> Iterator[Edge]:
    everyone = (patches,) * len(plan.buckets[-1].capacity)
    for number, bucket in enumerate(plan.buckets[:-1]):
        for step, capacity in enumerate(bucket.capacity):
            if plan.mode == "threshold" and (plan.thresholds or everyone)[step] is None:
                continue
            before = bucket.capacity[step - 1] if step else patches  # a token that leaves does not return
            if capacity == before:
                continue
            above = (*bucket.capacity[:step], before, *bucket.capacity[step + 1 :])
            yield Edge(number, step, capacity, bucket.capacity)
            yield Edge(number, step, capacity + 1, above)
        if bucket.upto is not None:
            yield Edge(number, plan.lead, bucket.upto, everyone)
            yield Edge(number, plan.lead, bucket.upto + 1, everyone)


@dataclass
class Pool:
    """Pictures with their token counts, to which a search adds; `budget` pictures may be counted."""

    count: Count
    budget: int
    pictures: list[Pixels] = field(default_factory=list)  # (height, width, 3)
    counts: list[NDArray[np.int64]] = field(default_factory=list)  # (steps,)
    clear: list[bool] = field(default_factory=list)

    def add(self, pictures: Pixels) -> None:
        """Count pictures (n, height, width, 3) and keep them, as many as the budget allows."""
        pictures = pictures[: max(self.budget, 0)]
        if len(pictures):
            self.budget -= len(pictures)
            self.keep(pictures, *self.count(pictures))

    def keep(self, pictures: Pixels, counts: NDArray[np.int64], clear: NDArray[np.bool_]) -> None:
        """Keep pictures that have been counted."""
        self.pictures += list(pictures)
        self.counts += list(counts)
        self.clear += clear.tolist()

    def at(self, edge: Edge) -> list[int]:
        """Return the clear pictures at an edge, as indices."""
        if not self.pictures:
            return []
        return np.flatnonzero(edge.holds(np.stack(self.counts)) & np.array(self.clear)).tolist()

    def find(self, edge: Edge) -> list[int]:
        """Return the clear pictures at an edge, one of which may have to be made; none if the budget is too small."""
        pairs = [] if self.at(edge) else self._around(edge)
        found = any(self._meets(edge, low, high) for low, high in pairs)
        return self.at(edge) if found or not pairs else []

    def _around(self, edge: Edge) -> list[tuple[int, int]]:
        """Return pairs of pictures with at most the edge's tokens and with more, the closest first."""
        if not self.pictures:
            return []
        counts = np.stack(self.counts)
        at, beyond, over = counts[:, edge.step], edge.beyond(counts), edge.over(counts)
        low = sorted(np.flatnonzero(~over), key=lambda i: (beyond[i], edge.tokens - at[i]))
        high = sorted(np.flatnonzero(over), key=lambda i: (beyond[i], at[i]))
        return [(int(low[i]), int(high[j])) for i, j in _nearest(len(low), len(high))][:PAIRS]

    def _meets(self, edge: Edge, low: int, high: int) -> bool:
        """Halve the way from one picture to another until a clear one is at the edge; whether one is."""
        under, over = self.pictures[low], self.pictures[high]
        for _ in range(HALVINGS):
            middle = ((under.astype(np.uint16) + over) // 2).astype(np.uint8)
            if self.budget <= 0 or (middle == under).all() or (middle == over).all():
                return False
            self.add(middle[None])
            if self.clear[-1] and edge.holds(self.counts[-1][None])[0]:
                return True
            if edge.over(self.counts[-1][None])[0]:
                over = middle
            else:
                under = middle
        return False


def _nearest(lows: int, highs: int) -> list[tuple[int, int]]:
    """Return pairs of ranks, those of the smallest sums first."""
    pairs = [(i, j) for i in range(min(lows, PAIRS)) for j in range(min(highs, PAIRS))]
    return sorted(pairs, key=sum)
