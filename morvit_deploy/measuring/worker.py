"""A process that serves one bundle to `bench`: requests and answers are JSON lines on stdin and stdout. No torch.

Arguments: bundle folder, its target, a .npy file of pixels uint8 (rounds, batch, height, width, 3), threads, and
perhaps the bucket to run every image in. First line out: load and first run in milliseconds. Then
{"runs", "warmup"} is answered with both kinds of samples, and with the bucket and the overflow flag of each image
where the bundle answers them; the runs take the rounds in turn, or with "order", a list of round numbers, these, from
its beginning. {"memory"} is answered with MiB. The end of stdin ends the process, so that it never outlives the one
who asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

import numpy as np

from morvit_deploy.devices import memory_mib
from morvit_deploy.errors import MorvitError
from morvit_deploy.exporters.registry import find_target, open_bundle
from morvit_deploy.pixels import Pixels
from morvit_deploy.runtime import Arrays, Session


class Rounds:
    """Pixels uint8 (rounds, batch, height, width, 3) of a .npy file, a round at a time.

    Many pictures held in memory would count as the bundle's.
    """

    def __init__(self, path: str) -> None:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        self._path, self._start, self._shape = path, mapped.offset, mapped.shape

    def __len__(self) -> int:
        return self._shape[0]

    def __getitem__(self, number: int) -> Pixels:
        size = math.prod(self._shape[1:])
        flat = np.fromfile(self._path, np.uint8, count=size, offset=self._start + number * size)
        return flat.reshape(self._shape[1:])


@dataclass
class Timed:
    """Runs of a session: milliseconds, and what the bundle says of each image."""

    ms: list[float] = field(default_factory=list)
    bucket: list[list[str]] = field(default_factory=list)
    overflow: list[list[bool]] = field(default_factory=list)


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; a refused bundle is answered as {"error"}."""
    bundle, target, pixels, threads, *bucket = arguments
    answers = _own_stdout()
    try:
        _serve(bundle, target, Rounds(pixels), int(threads), bucket[0] if bucket else None, answers)
    except MorvitError as error:
        _say(answers, {"error": str(error)})


def _serve(
    bundle: str, target: str, rounds: Rounds, threads: int, bucket: str | None, answers: TextIO
) -> None:
    turn = itertools.cycle(range(len(rounds)))
    find_target(target).load_runner()  # the runtime's import is no part of loading
    before = memory_mib()
    started = time.perf_counter_ns()
    session = open_bundle(bundle, threads=threads, bucket=bucket)
    load_ms = _ms_since(started)
    (first_run_ms,) = timed(session, rounds, turn, 1).ms
    times = {
        "load_ms": load_ms,
        "first_run_ms": first_run_ms,
        "anonymous_mib": before.get("anonymous"),
        "resident_mib": before.get("resident"),
    }
    _say(answers, times)
    with session:
        for line in sys.stdin:
            _say(answers, _answer(json.loads(line), session, rounds, turn))


def _answer(request: dict[str, Any], session: Session, rounds: Rounds, turn: Iterator[int]) -> dict[str, Any]:
    if "memory" in request:
        _give_back_freed_memory()
        return memory_mib()
    order = request.get("order")
    warmup = timed(session, rounds, itertools.cycle(order) if order else turn, request["warmup"])
    runs = timed(session, rounds, itertools.cycle(order) if order else turn, request["runs"])
    return {"warmup_ms": warmup.ms, "ms": runs.ms, "bucket": runs.bucket, "overflow": runs.overflow}


def timed(session: Session, rounds: Rounds, turn: Iterator[int], runs: int) -> Timed:
    """Milliseconds from pixels to answers, the path an application takes, for each of `runs` runs."""
    taken = Timed()
    for number in itertools.islice(turn, runs):
        pixels = rounds[number]
        started = time.perf_counter_ns()
        outputs = session.run(pixels)
        taken.ms.append(_ms_since(started))
        _note(session, outputs, taken)
    return taken


def _note(session: Session, outputs: Arrays, taken: Timed) -> None:
    """What a bundle that chooses buckets, or one of its buckets alone, says of each image."""
    if "bucket" in outputs:
        buckets = session.manifest.plan.buckets
        taken.bucket.append([buckets[number].name for number in outputs["bucket"]])
    if "overflow" in outputs:
        taken.overflow.append(outputs["overflow"].tolist())


def _ms_since(started_ns: int) -> float:
    return (time.perf_counter_ns() - started_ns) / 1e6


def _give_back_freed_memory() -> None:
    """glibc keeps freed copies of the weights: without this they would count as in use."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _own_stdout() -> TextIO:
    """Stdout for answers alone: whatever a library prints goes to stderr."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        main(sys.argv[1:])
