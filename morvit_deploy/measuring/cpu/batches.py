"""Runs of several pictures at once, in a worker whose pixels are one picture a round. No torch."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.agent.serving import Model, Rounds, timed

if TYPE_CHECKING:
    from morvit_deploy.agent.serving import Extra

BATCH = "batch"  # key of the request


class InBatches(Rounds):
    """The rounds of `one`, several at a time from the first on; the last batch is filled from the start."""

    def __init__(self, one: Rounds, batch: int) -> None:
        self._one, self._batch = one, batch

    def __len__(self) -> int:
        return math.ceil(len(self._one) / self._batch)

    def __getitem__(self, number: int) -> NDArray[Any]:
        taken = range(number * self._batch, (number + 1) * self._batch)
        return np.concatenate([self._one[own % len(self._one)] for own in taken])


def in_batches(rounds: Rounds) -> Extra:
    """The request {"batch", "runs", "warmup"} of `agent.serving.serve`: a block of runs of so many pictures."""

    def block(model: Model, request: dict[str, Any]) -> dict[str, Any]:
        own = InBatches(rounds, request[BATCH])
        warmup, runs = (
            timed(model, own, itertools.cycle(range(len(own))), request[name]) for name in ("warmup", "runs")
        )
        return {"warmup_ms": warmup.ms, "ms": runs.ms, "bucket": runs.bucket, "overflow": runs.overflow}

    return block
