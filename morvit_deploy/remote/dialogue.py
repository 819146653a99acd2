"""JSON lines to and from a process on the device, over one command of a connection."""

from __future__ import annotations

import contextlib
import json
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from typing import IO, Any

from morvit_deploy.agent.core.child import how, quoted
from morvit_deploy.errors import TargetError
from morvit_deploy.remote.connection import Connection, LocalConnection
from morvit_deploy.remote.refusals import spoken

SILENT_S = 15.0  # the agent sends a beat every 4 s: after so long without one, the device is lost or hangs
BEAT_S = 5.0  # ours; the agent ends 30 s after the last one
_POLL_S = 0.5
_NOTICE_S = 2.0  # between the end of a command and that of its connection
_END_S = 3.0


class Dropped(Exception):
    """The connection to the device was lost; the message gives the reason."""


class Dialogue:
    """Requests and replies in turn, with beats from both sides after `begin_beats`.

    `hear` is called with the events that the agent reports before its reply.
    """

    hear: Callable[[dict[str, Any]], None] = staticmethod(lambda event: None)

    def __init__(self, connection: Connection | LocalConnection, command: str) -> None:
        self._connection = connection
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe could fill up; closed in `close`
        self._process = connection.start(command, self._stderr.fileno())
        self._lines: queue.Queue[bytes | None] = queue.Queue()
        self._writing, self._over = threading.Lock(), threading.Event()
        self._heard = time.monotonic()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def send(self, content: bytes) -> None:
        """Send raw bytes; a lost device is noticed by the missing reply."""
        with self._writing, contextlib.suppress(OSError, ValueError):
            self.stream.write(content)
            self.stream.flush()

    @property
    def stream(self) -> IO[bytes]:
        """The command's stdin, for binary data."""
        assert self._process.stdin is not None
        return self._process.stdin

    def ask(self, request: dict[str, Any], doing: str, timeout_s: float) -> dict[str, Any]:
        """Send a request, return its reply. Dropped when the connection ended, TargetError when the agent ended."""
        self.send(json.dumps(request).encode() + b"\n")
        return self.reply(doing, timeout_s)

    def reply(self, doing: str, timeout_s: float, *, silent_s: float = SILENT_S) -> dict[str, Any]:
        """The next reply; other lines, as a login shell prints, are skipped."""
        end = time.monotonic() + timeout_s
        self._heard = time.monotonic()
        while True:
            # only the command's end shows a killed agent: the ssh master has its stdout and may not close it
            ended = self.ended
            try:
                line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                if ended:
                    raise self._end(doing) from None
                self._check_time(doing, end, timeout_s, silent_s)
                continue
            if line is None:
                raise self._end(doing)
            with contextlib.suppress(ValueError):
                reply = json.loads(line)
                if isinstance(reply, dict) and "event" in reply:
                    self.hear(reply)
                elif isinstance(reply, dict) and "beat" not in reply:
                    return reply

    def begin_beats(self) -> None:
        """Send the agent a sign of life from now on."""
        threading.Thread(target=self._beat, daemon=True).start()

    def finish(self) -> None:
        """Close stdin, and wait shortly for the process to end by itself."""
        self._over.set()
        with self._writing, contextlib.suppress(OSError):
            self.stream.close()
        with contextlib.suppress(Exception):
            self._process.wait(_END_S)

    def close(self) -> None:
        """End it, whatever it is doing; may be called again."""
        self._over.set()
        self._process.kill()
        self._process.wait()
        self._listener.join(_END_S)  # it ends with the connection, if not before
        with self._writing, contextlib.suppress(OSError):
            self.stream.close()
        self._stderr.close()

    @property
    def ended(self) -> bool:
        """Has the command ended?"""
        return self._process.poll() is not None

    @property
    def status(self) -> int:
        """Exit status of the ended command; 255 is ssh's own."""
        return self._process.wait()

    def stderr(self) -> str:
        """The last lines of the command's stderr without ssh's debug output, as a block of a message."""
        self._stderr.seek(0)
        return quoted(spoken(self._stderr.read().decode(errors="replace")))

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._heard = time.monotonic()
                self._lines.put(line)
        self._lines.put(None)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_S):
            self.send(b'{"do": "beat"}\n')

    def _check_time(self, doing: str, end: float, timeout_s: float, silent_s: float) -> None:
        now = time.monotonic()
        if self._connection.lost():
            raise Dropped(f"while {doing}: {self._connection.last_words}")
        if now - self._heard > silent_s:
            raise Dropped(f"while {doing}: the device gave no sign of life for {silent_s:.0f} s")
        if now > end:
            raise TargetError(
                f"{self._connection.host.address} gave no reply for {timeout_s:.0f} s while {doing}"
            )

    def _end(self, doing: str) -> Exception:
        if self._connection.lost(_NOTICE_S):
            return Dropped(f"while {doing}: {self._connection.last_words}")
        return TargetError(
            f"the agent on {self._connection.host.address} ended while {doing}: {how(self.status)}; it wrote to "
            f"stderr:\n{self.stderr()}"
        )
