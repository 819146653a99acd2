"""The asking side of `worker`: a bundle in a process of its own has memory and a cold start of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.measuring.conditions import usage
from morvit_deploy.measuring.results import Block, Start

START_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 60.0  # and SLACK times what the runs should take
SLACK = 20
_COMMAND = ("-m", "morvit_deploy.measuring.worker")
_STDERR_LINES = 15


class Worker:
    """A running `worker`; a context manager that leaves no process behind.

    With `bucket` it runs every image in that bucket, whatever the image needs. Raises BundleError when the worker
    refuses the bundle, TargetError when it dies, hangs or answers nonsense.
    """

    def __init__(
        self, bundle: Path, target: str, pixels: Path, threads: int, bucket: str | None = None
    ) -> None:
        self.bundle = bundle
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe could fill up; closed in `close`
        self._lines: queue.Queue[str | None] = queue.Queue()
        started = time.perf_counter()
        forced = [] if bucket is None else [bucket]
        self._process = subprocess.Popen(
            [sys.executable, *_COMMAND, str(bundle), target, str(pixels), str(threads), *forced],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, "PYTHONSAFEPATH": "1"},  # a file in the user's folder shadows no module
            start_new_session=True,  # Ctrl-C reaches the one who asks, who then ends the worker
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            answer = self._answer("loading", START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise
        self.start = Start(cold_start_ms=(time.perf_counter() - started) * 1e3, **answer)

    def run(self, runs: int, warmup: int, order: Sequence[int] | None = None) -> Block:
        """`warmup` runs kept apart, then `runs` runs; both take the rounds of `order` from its beginning.

        Without an order they go on through the rounds from where the last block ended.
        """
        expected_s = (runs + warmup) * self.start.first_run_ms / 1e3
        before = usage(self._process.pid)
        request = {"runs": runs, "warmup": warmup} | ({"order": list(order)} if order else {})
        answer = self._ask(request, "running", ANSWER_TIMEOUT_S + SLACK * expected_s)
        others_percent = before.others_percent(usage(self._process.pid))
        bucket, overflow = (tuple(map(tuple, answer[name])) for name in ("bucket", "overflow"))
        return Block(tuple(answer["ms"]), tuple(answer["warmup_ms"]), others_percent, bucket, overflow)

    def memory_mib(self) -> dict[str, float]:
        """Resident, peak and anonymous memory of the worker, MiB, as far as the system tells."""
        memory: dict[str, float] = self._ask({"memory": True}, "reading memory", ANSWER_TIMEOUT_S)
        return memory

    def close(self) -> None:
        """End the process, whatever it is doing; may be called again."""
        self._kill()
        self._listener.join()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # a request that the dead worker never read
            self._process.stdin.close()
        self._stderr.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._lines.put(line)
        self._lines.put(None)

    def _ask(self, request: dict[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it has died: the missing answer says how
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        return self._answer(doing, timeout_s)

    def _answer(self, doing: str, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise self._failure(f"gave no answer for {timeout_s:.0f} s while {doing}") from None
        if line is None:
            raise self._failure(f"ended while {doing}: {_how(self._process.wait())}")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failure(f"answered {line[:80]!r} while {doing}, expected JSON") from None
        if "error" in answer:
            raise BundleError(answer["error"])
        return answer

    def _failure(self, what: str) -> TargetError:
        self._kill()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
        listed = "\n".join(f"  | {line}" for line in said) or "  (nothing)"
        return TargetError(f"the process that measures {self.bundle} {what}; it wrote to stderr:\n{listed}")

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


def _how(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name
