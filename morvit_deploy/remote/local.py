"""This machine in place of a device behind SSH: the same agent, started by a shell here."""

from __future__ import annotations

import subprocess
from types import TracebackType

from morvit_deploy.remote.host import Host


class LocalConnection:
    """What `Connection` is for a device; it is never lost."""

    last_words = "no reason given"

    def __init__(self, host: Host) -> None:
        self.host = host

    def start(self, command: str, stderr: int | None = None) -> subprocess.Popen[bytes]:
        """Run a command, with pipes to its stdin and stdout."""
        return subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )

    def lost(self, wait_s: float = 0.0) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """There is nothing to close."""

    def __enter__(self) -> LocalConnection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
