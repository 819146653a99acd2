"""Client of a worker on a device, as `process.Worker` is of one here. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from morvit_deploy.agent.core.child import ANSWER_TIMEOUT_S, START_TIMEOUT_S
from morvit_deploy.measuring.cpu.process import BundleProcess, block_of, run_request
from morvit_deploy.remote.dialogue import Dropped
from morvit_deploy.remote.session import Session
from morvit_deploy.timing.samples import Block, Start


class RemoteWorker(BundleProcess):
    """A worker process on the device, started again at the first request after the agent was set up again."""

    _made = 0

    def __init__(
        self, session: Session, place: str, threads: int, bucket: str | None = None, batch: int = 1
    ) -> None:
        RemoteWorker._made += 1
        self._batch, self._counted = batch, False
        self._number, self._session = RemoteWorker._made, session
        self._request = {"subject": place, "threads": threads, "bucket": bucket}
        self.start = session.resuming(self._started)

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """As `Worker.run`; a block that a drop cut off is repeated."""
        wanted = run_request(self.start, runs, warmup, order)
        images = (runs + warmup) * self._batch if self._counted else None
        reply = self._ask(*wanted, images=images)
        return block_of(reply, reply["others_percent"])

    def memory_mib(self) -> dict[str, float]:
        return {name: value for name, value in super().memory_mib().items() if name != "others_percent"}

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count the energy of the enclosed runs, warm-up included, where the device reads power."""
        self._counted = True
        try:
            yield
        finally:
            self._counted = False

    def close(self) -> None:
        """End the process, unless a drop has ended it."""
        if self._session.is_open and self._generation == self._session.generation:
            with contextlib.suppress(Dropped):
                self._session.ask({"do": "close", "worker": self._number}, "closing")

    def _started(self) -> Start:
        request = {"do": "start", "worker": self._number, **self._request}
        reply = self._session.ask(request, "loading", START_TIMEOUT_S)
        self._generation = self._session.generation
        return Start(**reply)

    def _ask(
        self, request: dict[str, Any], doing: str, timeout_s: float, images: int | None = None
    ) -> dict[str, Any]:
        sent = {
            "do": "ask",
            "worker": self._number,
            "request": request,
            "doing": doing,
            "timeout_s": timeout_s,
        }
        if images is not None:
            sent |= {"counted": self._request["subject"], "images": images}

        def ask() -> dict[str, Any]:
            if self._generation != self._session.generation:
                self._started()
            return self._session.ask(sent, doing, timeout_s + ANSWER_TIMEOUT_S)

        return self._session.resuming(ask)
