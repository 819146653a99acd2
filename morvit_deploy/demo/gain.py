"""What adaptive routing saves over top-k of the same accuracy, as far as a number of pictures can show. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.answers.accuracy import Interval, Z, paired_interval, wilson

PAYS, DOES_NOT, UNDECIDED = "pays", "does not pay", "undecided"
RULE = (
    "A schedule is as accurate as adaptive routing unless the 95 % interval of the difference in top-1, picture by "
    "picture, lies below zero. Adaptive routing pays if the cheapest such schedule costs more than the 95 % interval "
    "of its own mean cost, and does not if that schedule costs less and its top-1 is no lower."
)


@dataclass(frozen=True, eq=False)
class Way:
    """One way to route the pictures."""

    routing: str
    right: NDArray[np.bool_]  # (images,) is the class right?
    macs: NDArray[np.int64]  # (images,)
    checkpoint: str = ""  # the example's folder
    capacity: tuple[int, ...] = ()  # of a fixed schedule
    scale: float | None = None  # of top-k, relative to the checkpoint's own capacity

    @property
    def name(self) -> str:
        """In words."""
        if self.scale is None:
            return self.routing
        return f"{self.routing} at {self.scale:g}× the capacity of {self.checkpoint}"

    @property
    def top1(self) -> float:
        """Share of right classes."""
        return float(self.right.mean())

    @property
    def mean_macs(self) -> float:
        """MACs of a picture."""
        return float(self.macs.mean())

    @property
    def macs_interval(self) -> Interval:
        """95 % interval of the mean, as the pictures are a sample."""
        half = Z * float(self.macs.std()) / math.sqrt(len(self.macs))
        return Interval(self.mean_macs - half, self.mean_macs + half)

    def difference(self, other: Way) -> Interval:
        """95 % interval of this top-1 minus the other's, on the same pictures."""
        won, lost = int((self.right & ~other.right).sum()), int((other.right & ~self.right).sum())
        return paired_interval(won, lost, len(self.right))

    def as_accurate_as(self, other: Way) -> bool:
        """Whether the pictures do not show this way to be less accurate."""
        return self.difference(other).high >= 0

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        interval = wilson(self.top1, len(self.right))
        return {
            "name": self.name,
            "checkpoint": self.checkpoint,
            "capacity": list(self.capacity),
            "scale": self.scale,
            "top1": self.top1,
            "top1_interval": list(interval),
            "macs": self.mean_macs,
        }


@dataclass(frozen=True, eq=False)
class Gain:
    """Adaptive routing against fixed schedules on the same pictures."""

    adaptive: Way
    dense: Way  # every token in every step of the same model
    fixed: Sequence[Way]  # top-k at several budgets
    objects: NDArray[np.int64]  # (images,)

    @cached_property
    def rival(self) -> Way:
        """The cheapest fixed schedule that is as accurate; every token in every step if none is."""
        equal = [way for way in (*self.fixed, self.dense) if way.as_accurate_as(self.adaptive)]
        return min(equal, key=lambda way: way.mean_macs, default=self.dense)

    @property
    def peer(self) -> Way:
        """The cheapest fixed schedule whose top-1 on these pictures is no lower; every token if none is."""
        equal = [way for way in self.fixed if way.top1 >= self.adaptive.top1]
        return min(equal, key=lambda way: way.mean_macs, default=self.dense)

    @property
    def compared(self) -> Way:
        """The schedule to draw and to time: the rival or, where chance decides on it, the peer."""
        return self.peer if self.outcome == UNDECIDED else self.rival

    @property
    def factor(self) -> float:
        """How many times as many MACs the rival needs."""
        return self.rival.mean_macs / self.adaptive.mean_macs

    @property
    def peer_factor(self) -> float:
        """How many times as many MACs the peer needs."""
        return self.peer.mean_macs / self.adaptive.mean_macs

    @property
    def outcome(self) -> str:
        """PAYS, DOES_NOT or UNDECIDED; see RULE."""
        if not self.adaptive.as_accurate_as(self.dense):
            return DOES_NOT
        own = self.adaptive.macs_interval
        if self.rival.mean_macs > own.high:
            return PAYS
        clearly = self.rival.mean_macs < own.low and self.rival.top1 >= self.adaptive.top1
        return DOES_NOT if clearly else UNDECIDED

    def macs_of(self, way: Way, number: int) -> float:
        """Mean MACs of the pictures with so many objects."""
        return float(way.macs[self.objects == number].mean())

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        ways = (self.adaptive, *self.fixed, self.dense)
        numbers = np.unique(self.objects).tolist()
        return {
            "rule": RULE,
            "outcome": self.outcome,
            "factor": self.factor,
            "rival": self.rival.name,
            "peer": self.peer.name,
            "ways": [way.as_dict() for way in ways],
            "macs_by_objects": {str(number): self.macs_of(self.adaptive, number) for number in numbers},
        }
