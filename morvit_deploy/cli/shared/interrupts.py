"""Ctrl-C and other signals that end a command: exit status 130, no traceback, nothing half-written."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPT_STATUS = 130
INTERRUPTED = "interrupted; nothing half-written was left behind"
_ENDING = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP


@contextmanager
def while_loading() -> Iterator[None]:
    """End at once on Ctrl-C: nothing was begun, and libraries that are being imported may swallow an exception."""
    try:
        before = signal.signal(signal.SIGINT, _end_now)
    except ValueError:  # imported in a thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def clean_up_on_signals() -> None:
    """Let signals that end a process clean up as Ctrl-C does; those that are ignored (`nohup`, `&`) stay ignored."""
    for name in _ENDING:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _end_now(number: int, frame: FrameType | None) -> None:
    os.write(2, f"error: {INTERRUPTED}\n".encode())
    os._exit(INTERRUPT_STATUS)
