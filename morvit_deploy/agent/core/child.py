"""A child process that returns JSON lines: bounded waiting, and an error that shows its stderr. No numpy."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from morvit_deploy.agent.core.faults import AgentError, Refused

START_TIMEOUT_S = 300.0
ANSWER_TIMEOUT_S = 60.0  # and SLACK times what the runs should take
SLACK = 20
_SHOWN_LINES = 15


class Child:
    """A running process, until `close`. `first` is the first line that it wrote.

    Raises Refused when a line has an "error", AgentError when the process dies, hangs or returns no JSON.
    """

    def __init__(
        self,
        command: Sequence[str],
        what: str,
        environment: Mapping[str, str] | None = None,
        timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._what = what
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe could fill up; closed in `close`
        self._lines: queue.Queue[str | None] = queue.Queue()
        started = time.perf_counter()
        self.process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            universal_newlines=True,
            encoding="utf-8",
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent, which then ends the child
        )
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.first = self._reply("loading", timeout_s)
        except BaseException:
            self.close()
            raise
        self.until_first_ms = (time.perf_counter() - started) * 1e3

    def ask(self, request: Mapping[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        """Send a line, wait for the reply."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # it has died: `_reply` reports how
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self._reply(doing, timeout_s)

    def close(self) -> None:
        """End the process, whatever it is doing; may be called again."""
        self._kill()
        self._listener.join()
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # a request that the dead process never read
            self.process.stdin.close()
        self._stderr.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put(None)

    def _reply(self, doing: str, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise self._failure(f"gave no reply for {timeout_s:.0f} s while {doing}") from None
        if line is None:
            raise self._failure(f"ended while {doing}: {how(self.process.wait())}")
        try:
            reply: dict[str, Any] = json.loads(line)
        except ValueError:
            raise self._failure(f"replied {line[:80]!r} while {doing}, expected JSON") from None
        if "error" in reply:
            raise Refused(reply["error"])
        return reply

    def _failure(self, what: str) -> AgentError:
        self._kill()
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace")
        return AgentError(f"{self._what} {what}; it wrote to stderr:\n{quoted(said)}")

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()


def quoted(text: str) -> str:
    """The last lines of what a process wrote, as a block of a message."""
    lines = text.strip().splitlines()[-_SHOWN_LINES:]
    return "\n".join(f"  | {line}" for line in lines) or "  (nothing)"


def how(status: int) -> str:
    """How a process ended, from its status."""
    if status >= 0:
        return f"exit status {status}"
    name = signal.Signals(-status).name
    return f"{name}, perhaps because memory ran out" if name == "SIGKILL" else name


def own_stdout() -> TextIO:
    """The child's stdout, for replies alone: whatever a library prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def say(replies: TextIO, reply: Mapping[str, Any]) -> None:
    """Write one JSON line and flush it."""
    replies.write(json.dumps(reply) + "\n")
    replies.flush()
