"""Client of `worker`: a bundle in a process of its own, with its own memory and cold start."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.child import ANSWER_TIMEOUT_S, SLACK, START_TIMEOUT_S, Child
from morvit_deploy.machine.agent_errors import own_errors
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.cpu.batches import BATCH
from morvit_deploy.timing.conditions import usage
from morvit_deploy.timing.samples import Block, Start

_COMMAND = ("-m", "morvit_deploy.measuring.cpu.worker")


class BundleProcess(ABC):
    """A process that runs a bundle, here or on a device; a context manager that ends it."""

    start: Start

    @abstractmethod
    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """`warmup` runs, stored separately, then `runs` runs; both start at the beginning of `order`.

        Without an order, they continue with the rounds where the last block ended.
        """

    def parity(self, rounds: int) -> dict[str, Any]:
        """Compare what the first rounds return with those expected, as `agent.parity.gaps` returns it."""
        return self._ask(
            {"parity": rounds}, "comparing what it returns with what is expected", START_TIMEOUT_S
        )

    def memory_mib(self) -> dict[str, float]:
        """Resident, peak and anonymous memory of the process, MiB, as far as the system reports it."""
        return self._ask({"memory": True}, "reading memory", ANSWER_TIMEOUT_S)

    @abstractmethod
    def close(self) -> None:
        """End the process; may be called again."""

    def __enter__(self) -> BundleProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @abstractmethod
    def _ask(self, request: dict[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        """Send a request of `agent.serving` and return its reply."""


class LocalProcess(BundleProcess):
    """Python with `arguments` as a process of this machine, which serves the requests of `agent.serving`.

    Raises BundleError when it refuses what it was given, TargetError when it dies, hangs or replies with anything
    but JSON.
    """

    def __init__(self, arguments: Sequence[str], what: str) -> None:
        command = [sys.executable, *arguments]
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # a file in the user's folder shadows no module
        with own_errors():
            self._child = Child(command, f"the process that measures {what}", environment, START_TIMEOUT_S)
        self.start = Start(cold_start_ms=self._child.until_first_ms, **self._child.first)

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        before = usage(self._child.process.pid)
        reply = self._ask(*run_request(self.start, runs, warmup, order))
        return block_of(reply, before.others_percent(usage(self._child.process.pid)))

    def run_batch(self, batch: int, runs: int, warmup: int) -> Block:
        """Runs of `batch` pictures at once, from the first picture on."""
        before = usage(self._child.process.pid)
        request, doing, timeout_s = run_request(self.start, runs * batch, warmup * batch, None)
        request |= {"runs": runs, "warmup": warmup, BATCH: batch}
        reply = self._ask(request, f"{doing} {batch} pictures at once", timeout_s)
        return block_of(reply, before.others_percent(usage(self._child.process.pid)))

    def close(self) -> None:
        self._child.close()

    def _ask(self, request: dict[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        with own_errors():
            return self._child.ask(request, doing, timeout_s)


class Worker(LocalProcess):
    """A running `worker` of a bundle, whose expected logits are in `expected_file`.

    With `bucket` it runs every image in that bucket.
    """

    def __init__(
        self, bundle: Path, target: str, pixels: Path, threads: int, bucket: str | None = None
    ) -> None:
        forced = [] if bucket is None else [bucket]
        super().__init__([*_COMMAND, str(bundle), target, str(pixels), str(threads), *forced], str(bundle))


# of a subject, threads, and perhaps a bucket
OpenWorker = Callable[[Subject, int, "str | None"], BundleProcess]


def open_here(subject: Subject, threads: int, bucket: str | None = None) -> Worker:
    """A worker on this machine."""
    return Worker(subject.bundle, subject.manifest.target, subject.pixels, threads, bucket)


def run_request(
    start: Start, runs: int, warmup: int, order: Sequence[int] | None
) -> tuple[dict[str, Any], str, float]:
    """The request for a block, a description for errors, and the timeout in seconds."""
    expected_s = (runs + warmup) * start.first_run_ms / 1e3
    request = {"runs": runs, "warmup": warmup} | ({"order": list(order)} if order else {})
    return request, "running", ANSWER_TIMEOUT_S + SLACK * expected_s


def block_of(reply: dict[str, Any], others_percent: float | None) -> Block:
    """A block from the reply to `run_request`."""
    bucket, overflow = (tuple(map(tuple, reply[name])) for name in ("bucket", "overflow"))
    return Block(tuple(reply["ms"]), tuple(reply["warmup_ms"]), others_percent, bucket, overflow)
