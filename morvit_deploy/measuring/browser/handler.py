"""One request to the page's server, and the headers of every reply. No torch."""

from __future__ import annotations

import contextlib
import json
import queue
import select
import shutil
import socket
import ssl
from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from morvit_deploy.measuring.browser.server import PageServer, Served

KEEPALIVE_S = 1.0  # between signs of life on the stream
GONE_MS = 10_000  # an unacknowledged message after which the device counts as gone
MOST_REPLY_BYTES = 64 << 20
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".json": "application/json",
}
HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",  # both: threads need an isolated page
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'self' blob:; script-src 'self' blob: 'wasm-unsafe-eval'; "
    "img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",  # the token stays here
}
INDEX = "index.html"


class Handler(BaseHTTPRequestHandler):
    """One request: `/TOKEN/` and what is listed below it."""

    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "morvit-deploy", ""
    refusal: ClassVar[str] = (
        "This link is not valid, or another page has used it: it works once. Start the measurement again for a new "
        "one.\n"
    )

    def do_GET(self) -> None:
        """A file of the page, or its stream of requests."""
        name = self._admitted()
        if name is None:
            return
        if name == "events":
            self._stream()
        elif (file := self.server.files.get(name or INDEX)) is None:
            self._send(404, b"there is no such file\n")
        else:
            self._send_file(name or INDEX, file)

    def do_POST(self) -> None:
        """The page's hello, or its reply to a request."""
        name = self._admitted()
        if name is None:
            return
        try:
            length = int(self.headers.get("Content-Length", "-1"))
            if not 0 <= length <= MOST_REPLY_BYTES:
                raise ValueError("the length of a message is missing or too large")
            body = json.loads(self.rfile.read(length))
            if not isinstance(body, dict):
                raise ValueError("a message is a JSON object")
        except ValueError as error:
            self.close_connection = True
            self._send(400, f"{error}\n".encode())
            return
        if name == "hello":
            self._greet(body)
        elif name == "reply":
            self.server.page.answer(body)
            self._send(200, b"")
        else:
            self._send(404, b"there is no such place\n")

    def log_message(self, *_: Any) -> None:
        """The terminal shows the measurement."""

    def _admitted(self) -> str | None:
        """What is asked for, below the token; None after a refusal."""
        token, _, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        jar: SimpleCookie = SimpleCookie()
        with contextlib.suppress(CookieError):
            jar.load(self.headers.get("Cookie", ""))
        own = jar.get(self.server.cookie)
        if self.server.admits(token, own.value if own else None):
            return name
        self.close_connection = True  # its body is not read
        self._send(403, self.refusal.encode())
        return None

    def _greet(self, about: dict[str, Any]) -> None:
        session = self.server.take()
        if session is None:
            self._send(403, self.refusal.encode())
            return
        self.server.page.greet(about, str(self.client_address[0]))
        cookie = f"{self.server.cookie}={session}; Path=/{self.server.token}/; HttpOnly; SameSite=Strict"
        self._send(200, b"", {"Set-Cookie": cookie})

    def _send_file(self, name: str, file: Served) -> None:
        cache = "private, max-age=86400, immutable" if file.fixed else "no-store"
        stream, size = file.open()
        with stream:
            self._begin(
                200, TYPES.get(Path(name).suffix, "application/octet-stream"), size, {"Cache-Control": cache}
            )
            shutil.copyfileobj(stream, self.wfile)

    def _send(self, status: int, body: bytes, more: Mapping[str, str] | None = None) -> None:
        self._begin(status, "text/plain; charset=utf-8", len(body), more or {})
        self.wfile.write(body)

    def _begin(self, status: int, kind: str, size: int, more: Mapping[str, str]) -> None:
        self.send_response(status)
        about = {"Content-Type": kind, "Content-Length": str(size), "Cache-Control": "no-store"}
        for header, value in (about | HEADERS | dict(more)).items():
            self.send_header(header, value)
        self.end_headers()

    def _stream(self) -> None:
        """Server-sent events until the page is closed or the last message has left."""
        page = self.server.page
        self.close_connection = True
        self.send_response(200)
        for header, value in (
            HEADERS | {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        ).items():
            self.send_header(header, value)
        self.send_header("Connection", "close")
        self.end_headers()
        _notice_loss(self.connection)
        page.connect()
        try:
            while not self._is_gone():
                try:
                    message = page.outgoing.get(timeout=KEEPALIVE_S)
                except queue.Empty:
                    self._write(b": here\n\n")
                    continue
                if message is None:
                    break
                self._write(b"data: " + json.dumps(message).encode() + b"\n\n")
        except OSError:  # the connection broke
            pass
        finally:
            page.close()

    def _write(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def _is_gone(self) -> bool:
        """Has the page closed its side? It sends nothing on this connection."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        if not readable:
            return False
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.settimeout(0)
            try:
                return not self.connection.recv(1)
            except ssl.SSLWantReadError:
                return False
            finally:
                self.connection.settimeout(None)
        return not self.connection.recv(1, socket.MSG_PEEK)


def _notice_loss(connection: socket.socket) -> None:
    """Let the system report a device that has left the network, instead of sending again for a quarter of an hour."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
    if option is not None:
        connection.setsockopt(socket.IPPROTO_TCP, option, GONE_MS)
