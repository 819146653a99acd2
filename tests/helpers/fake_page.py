"""Plays the page of `bench --device browser` over HTTP, with ONNX Runtime of this process for the browser."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import morvit_deploy as md
from morvit_deploy.measuring.browser import runtime

CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"
)
ABOUT = {
    "user_agent": CHROME,
    "details": None,
    "cores": 4,
    "memory_gib": 8,
    "isolated": True,
    "secure": True,
    "simd": True,
    "threads": True,
    "webgpu": False,
    "gpu": None,
}
Spoil = Callable[
    [dict[str, Any], dict[str, Any]], "dict[str, Any] | None"
]  # of request and reply; None: close


def stand_in_runtime(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the place of onnxruntime-web."""
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.30.0"}')
    for module in runtime.MODULES.values():
        (folder / "dist" / module).write_text("export {}")
    monkeypatch.setenv(runtime.FOLDER_VARIABLE, str(folder))


class FakePage(threading.Thread):
    """A page that runs `bundle`. `spoil` may change a reply, or close the page; `seen` are the messages it got."""

    def __init__(self, bundle: Path, about: dict[str, Any] | None = None, spoil: Spoil | None = None) -> None:
        super().__init__(daemon=True)
        self.bundle, self.about, self.spoil = bundle, ABOUT | (about or {}), spoil or (lambda _, reply: reply)
        self.seen: list[dict[str, Any]] = []
        self.url, self.cookie = "", ""

    def open(self, invitation: Any) -> None:
        """The `show` of a Browser."""
        self.url = invitation.urls[0]
        self.start()

    def run(self) -> None:
        _, headers = self.post("hello", self.about)
        self.cookie = str(headers["Set-Cookie"]).partition(";")[0]
        for message in self.messages():
            self.seen.append(message)
            if "id" not in message:
                if message["do"] == "end":
                    return
                continue
            reply = self.spoil(message, self.answer(message))
            if reply is None:
                return
            self.post("reply", {**reply, "id": message["id"]})

    def messages(self) -> Iterator[dict[str, Any]]:
        connection = self._connection()
        try:
            connection.request("GET", self._path("events"), headers={"Cookie": self.cookie})
            stream = connection.getresponse()
            while line := stream.readline():
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))
            stream.close()
        finally:
            connection.close()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["do"] == "load":
            times = {"cold_start_ms": 30.0, "load_ms": 20.0, "first_run_ms": 1.0, "tick_ms": 0.1}
            self.pixels = np.frombuffer(self.get(f"{request['bundle']}/pixels")[1], np.uint8)
            self.rounds = self.pixels.reshape(-1, request["round"])
            return times | {"threads": 2, "version": "1.30.0", "warnings": []}
        if request["do"] == "answers":
            with md.open_bundle(self.bundle, threads=1) as session:
                size = session.manifest.config.image_size
                found = session.answer(self.rounds[: request["rounds"]].reshape(-1, size, size, 3))
            return {"answers": found.reshape(len(found), -1).tolist()}
        if request["do"] == "run":
            return {
                "ms": [2.0] * request["runs"], "warmup_ms": [3.0] * request["warmup"], "bucket": [], "overflow": []
            }  # fmt: skip
        return {"webassembly": 16.0} if request["do"] == "memory" else {}

    def get(self, name: str) -> tuple[int, bytes]:
        """Status and body of a file below the token."""
        return fetch(self.url, name, self.cookie)[:2]

    def post(self, name: str, body: Any) -> tuple[int, Any]:
        connection = self._connection()
        connection.request("POST", self._path(name), json.dumps(body), {"Cookie": self.cookie})
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply.status, reply.headers

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=20)

    def _path(self, name: str) -> str:
        return urlsplit(self.url).path + name


def fetch(url: str, name: str = "", cookie: str = "") -> tuple[int, bytes, Any]:
    """Status, body and headers of a GET of `url` and a name as it stands: nothing is normalised."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=20)
    connection.request("GET", place.path + name, headers={"Cookie": cookie} if cookie else {})
    reply = connection.getresponse()
    body = reply.read()
    connection.close()
    return reply.status, body, reply.headers
