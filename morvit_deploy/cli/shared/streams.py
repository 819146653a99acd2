"""The standard streams: whatever becomes of them, the exit status says how the command went.

A reader that closes the pipe, as `| head` does, is no error. Where the result cannot be printed otherwise, as on a
full disk, one line on stderr says so, and the exit status is 2 unless a check failed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any

NOT_PRINTED = 2  # exit status
_GONE = (errno.EPIPE, errno.EBADF, errno.EINVAL)  # the reader; Windows reports EINVAL


class Stream:
    """A text stream that remembers the first error of writing instead of raising it; all else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, unless an earlier write failed."""
        if self.lost is None:
            try:
                self._stream.write(text)
            except OSError as error:
                self._lose(error)
        return len(text)

    def flush(self) -> None:
        """Flush, unless an earlier write failed."""
        if self.lost is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        """What is still buffered goes to the null device, so that closing the stream does not fail again."""
        self.lost = error
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)
            self._stream.flush()


def open_closed() -> None:
    """Open the null device in place of closed standard streams: the next file opened would get their number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123  # until the end


def guard() -> None:
    """Put a `Stream` in place of stdout and stderr."""
    open_closed()
    sys.stdout, sys.stderr = Stream(sys.stdout), Stream(sys.stderr)


def status_after(status: int) -> int:
    """The exit status of a command that ended with `status`, once stdout is flushed."""
    sys.stdout.flush()
    lost = getattr(sys.stdout, "lost", None)
    if lost is not None and lost.errno not in _GONE:
        print(
            f"error: the result could not be printed: {lost.strerror}; output files are complete",
            file=sys.stderr,
        )
        status = status or NOT_PRINTED
    sys.stderr.flush()
    return status
