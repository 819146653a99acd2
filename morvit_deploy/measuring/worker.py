"""A process that serves one bundle to `bench`: requests and answers are JSON lines on stdin and stdout. No torch.

Arguments: bundle folder, its target, a .npy file of pixels uint8 (rounds, batch, height, width, 3), threads.
First line out: load and first run in milliseconds. Then {"runs", "warmup"} is answered with both kinds of samples,
{"memory"} with MiB. The end of stdin ends the process, so that it never outlives the one who asked.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

import numpy as np

from morvit_deploy.devices import memory_mib
from morvit_deploy.errors import MorvitError
from morvit_deploy.exporters.registry import find_target, open_bundle
from morvit_deploy.pixels import Pixels
from morvit_deploy.runtime import Session


def main(arguments: Sequence[str]) -> None:
    """Serve until stdin ends; a refused bundle is answered as {"error"}."""
    bundle, target, pixels, threads = arguments
    answers = _own_stdout()
    try:
        _serve(bundle, target, np.load(pixels, allow_pickle=False), int(threads), answers)
    except MorvitError as error:
        _say(answers, {"error": str(error)})


def _serve(bundle: str, target: str, pixels: Pixels, threads: int, answers: TextIO) -> None:
    rounds = itertools.cycle(pixels)
    find_target(target).load_runner()  # the runtime's import is no part of loading
    before = memory_mib()
    started = time.perf_counter_ns()
    session = open_bundle(bundle, threads=threads)
    load_ms = _ms_since(started)
    (first_run_ms,) = _timed(session, rounds, 1)
    times = {"load_ms": load_ms, "first_run_ms": first_run_ms, "anonymous_mib": before.get("anonymous")}
    _say(answers, times)
    with session:
        for line in sys.stdin:
            _say(answers, _answer(json.loads(line), session, rounds))


def _answer(request: dict[str, Any], session: Session, rounds: Iterator[Pixels]) -> dict[str, Any]:
    if "memory" in request:
        _give_back_freed_memory()
        return memory_mib()
    warmup_ms = _timed(session, rounds, request["warmup"])
    return {"warmup_ms": warmup_ms, "ms": _timed(session, rounds, request["runs"])}


def _timed(session: Session, rounds: Iterator[Pixels], runs: int) -> list[float]:
    """Milliseconds from pixels to answers, the path an application takes, for each of `runs` runs."""
    samples = []
    for pixels in itertools.islice(rounds, runs):
        started = time.perf_counter_ns()
        session.run(pixels)
        samples.append(_ms_since(started))
    return samples


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
