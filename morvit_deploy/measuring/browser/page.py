"""The page at the other end of the server: requests go out in order, replies come back by number. No torch."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from typing import Any

from morvit_deploy.errors import BundleError, LostError, TargetError
from morvit_deploy.measuring.browser.about import named

POLL_S = 0.2  # waiting is cut into slices, so that Ctrl-C and a closed page are noticed
BYE_S = 2.0  # for the last message to leave


class Page:
    """One page, from its `hello` until it is closed. Its methods may be called by several threads."""

    def __init__(self) -> None:
        self.about: dict[str, Any] = {}  # what the page said of its browser
        self.address = ""  # of the machine that it runs on
        self.greeted_s: float | None = None  # by the monotonic clock
        self.was_hidden = False  # in the background during a request, where browsers slow pages down
        self.outgoing: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._replies: queue.Queue[dict[str, Any]] = queue.Queue()
        self._numbers = itertools.count(1)
        self._connected, self._closed = threading.Event(), threading.Event()

    @property
    def is_open(self) -> bool:
        """Has a page connected that is not closed yet?"""
        return self._connected.is_set() and not self._closed.is_set()

    def greet(self, about: dict[str, Any], address: str) -> None:
        """A page introduced itself."""
        self.about, self.address = about, address
        self.greeted_s = time.monotonic()

    def connect(self) -> None:
        """Its stream of requests is open."""
        self._connected.set()

    def close(self) -> None:
        """Its stream has ended."""
        self._closed.set()

    def wait(self, seconds: float) -> bool:
        """Wait for a page; is one connected?"""
        return self._connected.wait(seconds)

    def answer(self, reply: dict[str, Any]) -> None:
        """A reply arrived."""
        self._replies.put(reply)

    def say(self, message: dict[str, Any]) -> None:
        """Send a message that has no reply."""
        self.outgoing.put(message)

    def finish(self, message: dict[str, Any]) -> None:
        """Send the last message and wait until it has left."""
        self.outgoing.put(message)
        self.outgoing.put(None)
        self._closed.wait(BYE_S)

    def ask(self, request: dict[str, Any], doing: str, timeout_s: float, bundle: str) -> dict[str, Any]:
        """Send a request about `bundle` and wait for its reply.

        Raises LostError when the page is closed or does not answer, BundleError or TargetError for what failed in it.
        """
        number = next(self._numbers)
        self.outgoing.put({**request, "id": number})
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            try:
                reply = self._replies.get(timeout=POLL_S)
            except queue.Empty:
                if self._closed.is_set():
                    raise LostError(_closed(doing)) from None
                continue
            self.was_hidden |= bool(reply.get("hidden"))
            if reply.get("id") == number:
                return _checked(reply, bundle, self.browser)
        raise LostError(
            f"{self.browser} did not answer within {timeout_s:.0f} s while it was {doing}; keep the page in the "
            "foreground and the screen on, and repeat the measurement"
        )

    @property
    def user_agent(self) -> str:
        """As the browser states it."""
        return str(self.about.get("user_agent", ""))

    @property
    def browser(self) -> str:
        """Name and version, as in `Chromium 156.0.8078.108`."""
        name, version = named(self.user_agent, self.about.get("details"))
        return f"{name} {version}".strip()


def _closed(doing: str) -> str:
    return (
        f"the page was closed while it was {doing}, or its device left the network or ran out of memory; nothing was "
        "written. Keep the page open and the screen on, and repeat the measurement"
    )


def _checked(reply: dict[str, Any], bundle: str, browser: str) -> dict[str, Any]:
    """The reply; BundleError or TargetError where there is an error in it."""
    if "error" not in reply:
        return reply
    kind = BundleError if reply.get("kind") == "BundleError" else TargetError
    raise kind(f"{bundle} in {browser}: {reply['error']}")
