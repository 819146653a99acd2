"""The states of images between two rounds, so that a round goes on where the previous one stopped.

Memory stays constant: images beyond a budget are run from their pixels again in every round, with the same bits.
"""

from __future__ import annotations

from threading import Lock

import psutil

from morvit_deploy.calibration.routing.scout import Stopped
from morvit_deploy.calibration.routing.statistics import Thresholds

MOST_BYTES = 4 * 2**30  # 7 scales of a ViT-B/16 take 4.2 MB an image
SHARE = 0.25  # of the memory that is free when calibration begins

Stops = dict[Thresholds, Stopped]  # by the thresholds of the steps that were run


class States:
    """Where the units of a calibration stopped; `budget` is in bytes. It is thread-safe."""

    def __init__(self, budget: int | None = None) -> None:
        free = min(MOST_BYTES, int(SHARE * psutil.virtual_memory().available))
        self.budget = free if budget is None else budget
        self.used = 0
        self._stops: dict[int, Stops] = {}
        self._lock = Lock()

    def take(self, unit: int) -> Stops:
        """Remove and return where a unit stopped; empty if it has to run from its pixels."""
        with self._lock:
            stops = self._stops.pop(unit, {})
            self.used -= bytes_of(stops)
            return stops

    def keep(self, unit: int, stops: Stops) -> None:
        """Keep where a unit stopped, if the budget allows it."""
        with self._lock:
            size = bytes_of(stops)
            if self.used + size <= self.budget:
                self._stops[unit] = stops
                self.used += size


def bytes_of(stops: Stops) -> int:
    """Return the memory of states, each tensor counted once."""
    memory = [tensor.untyped_storage() for stopped in stops.values() for tensor in stopped.tensors()]
    return sum({storage.data_ptr(): storage.nbytes() for storage in memory}.values())


def nearest(stops: Stops, thresholds: Thresholds) -> Stopped:
    """Return the stop that has run the most steps with these thresholds."""
    fitting = [known for known in stops if thresholds[: len(known)] == known]
    return stops[max(fitting, key=len)]
