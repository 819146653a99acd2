"""Timed runs: requests and replies are JSON lines. Shared by the local worker and the agent's.

{"runs", "warmup"} returns both kinds of samples, and the bucket and the overflow flag of each image where the model
outputs them. The runs take the rounds in turn; with "order", a list of round numbers, they take these from its
beginning. {"memory"} returns MiB.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from morvit_deploy.agent.core.child import say
from morvit_deploy.agent.core.running import Arrays

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Extra = Callable[["Model", dict[str, Any]], dict[str, Any]]


class Rounds:
    """Pixels uint8 (rounds, batch, height, width, 3) of a .npy file, a round at a time.

    Pictures held in memory would count as the bundle's memory.
    """

    def __init__(self, path: str) -> None:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        self._path, self._start = path, mapped.offset
        self._shape: tuple[int, ...] = mapped.shape

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, number: int) -> NDArray[np.uint8]:
        size = math.prod(self._shape[1:])
        flat = np.fromfile(self._path, np.uint8, count=size, offset=self._start + number * size)
        return flat.reshape(self._shape[1:])


@dataclass
class Model:
    """An opened model: pixels uint8 (batch, height, width, 3) to its outputs, and the names of its buckets."""

    run: Callable[[Any], Arrays]
    buckets: Sequence[str]
    close: Callable[[], None]


@dataclass
class Timed:
    """Runs of a model: milliseconds, and bucket and overflow of each image."""

    ms: list[float] = field(default_factory=list)
    bucket: list[list[str]] = field(default_factory=list)
    overflow: list[list[bool]] = field(default_factory=list)


def serve(
    open_model: Callable[[], Model],
    rounds: Rounds,
    requests: Iterable[str],
    replies: TextIO,
    memory: Callable[[], dict[str, float]],
    extras: Mapping[str, Extra],
) -> None:
    """Load, run once, report how long both took, then serve until the requests end.

    `extras` are further requests, by a key that they have.
    """
    turn = itertools.cycle(range(len(rounds)))
    before = memory()
    started = time.perf_counter_ns()
    model = open_model()
    load_ms = ms_since(started)
    (first_run_ms,) = timed(model, rounds, turn, 1).ms
    times = {
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "anonymous_mib": before.get("anonymous"),
        "resident_mib": before.get("resident"),
    }
    say(replies, times)
    try:
        for line in requests:
            request = json.loads(line)
            extra = next((extras[key] for key in request if key in extras), None)
            if extra is not None:
                say(replies, extra(model, request))
            elif "memory" in request:
                _give_back_freed_memory()
                say(replies, memory())
            else:
                say(replies, _block(request, model, rounds, turn))
    finally:
        model.close()


def _block(request: dict[str, Any], model: Model, rounds: Rounds, turn: Iterator[int]) -> dict[str, Any]:
    order = request.get("order")
    warmup = timed(model, rounds, itertools.cycle(order) if order else turn, request["warmup"])
    runs = timed(model, rounds, itertools.cycle(order) if order else turn, request["runs"])
    return {"warmup_ms": warmup.ms, "ms": runs.ms, "bucket": runs.bucket, "overflow": runs.overflow}


def timed(model: Model, rounds: Rounds, turn: Iterator[int], runs: int) -> Timed:
    """Milliseconds from pixels to outputs, the path an application takes, for each of `runs` runs."""
    taken = Timed()
    for number in itertools.islice(turn, runs):
        pixels = rounds[number]
        started = time.perf_counter_ns()
        outputs = model.run(pixels)
        taken.ms.append(ms_since(started))
        if "bucket" in outputs:  # of an adaptive bundle, or of one of its buckets alone
            taken.bucket.append([model.buckets[number] for number in outputs["bucket"]])
        if "overflow" in outputs:
            taken.overflow.append(outputs["overflow"].tolist())
    return taken


def ms_since(started_ns: int) -> float:
    """Milliseconds since a reading of `time.perf_counter_ns`."""
    return (time.perf_counter_ns() - started_ns) / 1e6


def _give_back_freed_memory() -> None:
    """Return freed memory to the system: glibc keeps freed copies of the weights, which would count as in use."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
