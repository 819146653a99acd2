"""Serves one page, once: the files listed for it, a stream of requests, and a place for replies. No torch.

Every path begins with a random token. The first page that says hello gets a cookie, and from then on nothing is
served without it: the token works once. No path is looked up in a folder, so none leads out of one.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import os
import secrets
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO

from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.browser.handler import Handler
from morvit_deploy.measuring.browser.page import Page

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"


@dataclass(frozen=True)
class Served:
    """A file of the page: where it is, or its content; `fixed` files may be kept by the browser."""

    content: Path | bytes
    fixed: bool = False

    def open(self) -> tuple[BinaryIO, int]:
        """Its bytes as a stream, and their number."""
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content), len(self.content)
        return self.content.open("rb"), self.content.stat().st_size


class PageServer(ThreadingHTTPServer):
    """Listens for one page; `files` may grow until the page is open."""

    daemon_threads = True
    allow_reuse_address = os.name != "nt"  # there it would share the port with another server

    def __init__(self, address: tuple[str, int], files: Mapping[str, Served]) -> None:
        super().__init__(address, Handler)
        self.files = dict(files)
        self.page = Page()
        self.token, self._session = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
        self._taken, self._lock = False, threading.Lock()

    @property
    def port(self) -> int:
        """The port, also where any free one was asked for."""
        return int(self.server_address[1])

    @property
    def cookie(self) -> str:
        """The name of the page's cookie; those of one host are shared by its ports."""
        return f"morvit-{self.port}"

    def admits(self, token: str, cookie: str | None) -> bool:
        """May this request be served? Both are compared in constant time."""
        known = hmac.compare_digest(token.encode(), self.token.encode())
        own = hmac.compare_digest((cookie or "").encode(), self._session.encode())
        return known and (own or not self._taken)

    def take(self) -> str | None:
        """The session of the first page; None for every later one."""
        with self._lock:
            if self._taken:
                return None
            self._taken = True
            return self._session

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that breaks off a request is no error of ours."""


@contextlib.contextmanager
def serving(
    files: Mapping[str, Served], *, listen: bool = False, port: int = 0, certificate: Path | None = None
) -> Iterator[PageServer]:
    """A running server; TargetError when the port cannot be used, or the certificate cannot be read."""
    host = EVERYWHERE if listen else LOOPBACK
    context = None if certificate is None else _context(certificate)
    try:
        server = PageServer((host, port), files)
    except OSError as error:
        raise TargetError(
            f"cannot listen on port {port} of {host}: {error.strerror}; give another --port, or leave it out for a "
            "free one"
        ) from None
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate)
    except (OSError, ssl.SSLError) as error:
        raise TargetError(
            f"cannot use {certificate} as --certificate: {error}; expected a PEM file with a certificate and its "
            "private key"
        ) from None
    return context
