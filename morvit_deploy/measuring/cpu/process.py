"""Client of `worker`: a bundle in a process of its own, with its own memory and cold start."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from morvit_deploy.agent.core.child import ANSWER_TIMEOUT_S, SLACK, START_TIMEOUT_S, Child
from morvit_deploy.machine.agent_errors import own_errors
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.timing.conditions import usage
from morvit_deploy.timing.samples import Block, Start

COMPARING = "comparing its logits with those expected"
_COMMAND = ("-m", "morvit_deploy.measuring.cpu.worker")


class Worker:
    """A running `worker`; a context manager that ends the process.

    With `bucket` it runs every image in that bucket. Raises BundleError when the worker refuses the bundle,
    TargetError when it dies, hangs or replies with anything but JSON.
    """

    def __init__(
        self, bundle: Path, target: str, pixels: Path, threads: int, bucket: str | None = None
    ) -> None:
        self.bundle = bundle
        forced = [] if bucket is None else [bucket]
        command = [sys.executable, *_COMMAND, str(bundle), target, str(pixels), str(threads), *forced]
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # a file in the user's folder shadows no module
        with own_errors():
            self._child = Child(command, f"the process that measures {bundle}", environment, START_TIMEOUT_S)
        self.start = Start(cold_start_ms=self._child.until_first_ms, **self._child.first)

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """`warmup` runs, stored separately, then `runs` runs; both start at the beginning of `order`.

        Without an order, they continue with the rounds where the last block ended.
        """
        before = usage(self._child.process.pid)
        reply = self._ask(*run_request(self.start, runs, warmup, order))
        return block_of(reply, before.others_percent(usage(self._child.process.pid)))

    def parity(self, rounds: int) -> dict[str, Any]:
        """Compare the logits of the first rounds with those of `expected_file`, as `agent.parity.gaps` returns it."""
        return self._ask({"parity": rounds}, COMPARING, START_TIMEOUT_S)

    def memory_mib(self) -> dict[str, float]:
        """Resident, peak and anonymous memory of the worker, MiB, as far as the system reports it."""
        return self._ask({"memory": True}, "reading memory", ANSWER_TIMEOUT_S)

    def close(self) -> None:
        """Kill the process; may be called again."""
        self._child.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        with own_errors():
            return self._child.ask(request, doing, timeout_s)


class BundleProcess(Protocol):
    """A process that runs a bundle, here or on a device."""

    start: Start

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """A block."""

    def parity(self, rounds: int) -> dict[str, Any]:
        """Compare the logits of the first rounds with those expected, as `agent.parity.gaps` returns it."""

    def memory_mib(self) -> dict[str, float]:
        """Of the process that measures."""

    def close(self) -> None:
        """End it; may be called again."""


OpenWorker = Callable[
    [Subject, int, "str | None"], BundleProcess
]  # of a subject, threads and perhaps a bucket


def open_here(subject: Subject, threads: int, bucket: str | None = None) -> BundleProcess:
    """A worker on this machine."""
    return Worker(subject.bundle, subject.manifest.target, subject.pixels, threads, bucket)


def run_request(
    start: Start, runs: int, warmup: int, order: Sequence[int] | None
) -> tuple[dict[str, Any], str, float]:
    """The request for a block, a description for errors, and the timeout in seconds."""
    expected_s = (runs + warmup) * start.first_run_ms / 1e3
    request = {"runs": runs, "warmup": warmup} | ({"order": list(order)} if order else {})
    return request, "running", ANSWER_TIMEOUT_S + SLACK * expected_s


def block_of(reply: dict[str, Any], others_percent: float) -> Block:
    """A block from the reply to `run_request`."""
    bucket, overflow = (tuple(map(tuple, reply[name])) for name in ("bucket", "overflow"))
    return Block(tuple(reply["ms"]), tuple(reply["warmup_ms"]), others_percent, bucket, overflow)
