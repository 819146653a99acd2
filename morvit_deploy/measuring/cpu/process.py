"""The asking side of `worker`: a bundle in a process of its own has memory and a cold start of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from morvit_deploy.agent.core.child import ANSWER_TIMEOUT_S, SLACK, START_TIMEOUT_S, Child
from morvit_deploy.machine.agent_errors import own_errors
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.timing.conditions import usage
from morvit_deploy.timing.samples import Block, Start

COMPARING = "comparing the logits that it returns with those expected"
_COMMAND = ("-m", "morvit_deploy.measuring.cpu.worker")


class Worker:
    """A running `worker`; a context manager that leaves no process behind.

    With `bucket` it runs every image in that bucket, whatever the image needs. Raises BundleError when the worker
    refuses the bundle, TargetError when it dies, hangs or replies with nonsense.
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

    @property
    def _process(self) -> subprocess.Popen[str]:
        return self._child.process

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """`warmup` runs kept apart, then `runs` runs; both take the rounds of `order` from its beginning.

        Without an order they go on through the rounds from where the last block ended.
        """
        before = usage(self._process.pid)
        reply = self._ask(*run_request(self.start, runs, warmup, order))
        return block_of(reply, before.others_percent(usage(self._process.pid)))

    def parity(self, rounds: int) -> dict[str, Any]:
        """How far the logits of the first rounds are from those in the file of `expected_file`."""
        return self._ask({"parity": rounds}, COMPARING, START_TIMEOUT_S)

    def memory_mib(self) -> dict[str, float]:
        """Resident, peak and anonymous memory of the worker, MiB, as far as the system reports it."""
        return self._ask({"memory": True}, "reading memory", ANSWER_TIMEOUT_S)

    def close(self) -> None:
        """End the process, whatever it is doing; may be called again."""
        self._child.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _ask(self, request: dict[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        with own_errors():
            return self._child.ask(request, doing, timeout_s)


class BundleProcess(Protocol):
    """A process that runs a bundle: a Worker, or one on another device."""

    start: Start

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """A block."""

    def parity(self, rounds: int) -> dict[str, Any]:
        """How far the logits of the first rounds are from those expected, as `agent.parity` says it."""

    def memory_mib(self) -> dict[str, float]:
        """Of the process that measures."""

    def close(self) -> None:
        """End it; may be called again."""


OpenWorker = Callable[
    [Subject, int, "str | None"], BundleProcess
]  # with how many threads, and in which bucket


def open_here(subject: Subject, threads: int, bucket: str | None = None) -> BundleProcess:
    """A worker on this machine."""
    return Worker(subject.bundle, subject.manifest.target, subject.pixels, threads, bucket)


def run_request(
    start: Start, runs: int, warmup: int, order: Sequence[int] | None
) -> tuple[dict[str, Any], str, float]:
    """The request for a block, what the worker then does, and how long that may take, in seconds."""
    expected_s = (runs + warmup) * start.first_run_ms / 1e3
    request = {"runs": runs, "warmup": warmup} | ({"order": list(order)} if order else {})
    return request, "running", ANSWER_TIMEOUT_S + SLACK * expected_s


def block_of(reply: dict[str, Any], others_percent: float) -> Block:
    """The reply to `run_request`."""
    bucket, overflow = (tuple(map(tuple, reply[name])) for name in ("bucket", "overflow"))
    return Block(tuple(reply["ms"]), tuple(reply["warmup_ms"]), others_percent, bucket, overflow)
