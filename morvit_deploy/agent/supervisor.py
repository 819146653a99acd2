"""The agent's main process: serves requests as JSON lines, starts workers, and removes all that it made.

It ends, and removes its folder, on request, when stdin or stdout is closed, after SILENCE_S without input, or on a
signal. It sends {"beat"} every BEAT_S, so that the local side can distinguish a long run from a lost device, and
during a build {"event"} with what the builder reports.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from morvit_deploy.agent import conditions
from morvit_deploy.agent.core.child import Child, own_stdout, say
from morvit_deploy.agent.core.faults import AgentError
from morvit_deploy.agent.folder import ARCHIVE, boot_id, remove, sweep
from morvit_deploy.agent.host.machine import available_cores
from morvit_deploy.agent.host.processor import usage
from morvit_deploy.agent.runtimes import check_runtime, checked_threads
from morvit_deploy.agent.trt.builder import Builder, check_builder, share

BEAT_S = 4.0
SILENCE_S = 30.0  # of a local side that sends a beat every few seconds


class Supervisor:
    """Serves one request after the other, until `leave`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._replies, self._speaking = own_stdout(), threading.Lock()
        self._requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self._workers: dict[int, Child] = {}
        command = [sys.executable, str(folder / ARCHIVE), "build"]
        self._builder = Builder(command, self._say)  # its events have a key of their own
        self._heard, self._leaving = time.monotonic(), threading.Lock()
        self._actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "check": lambda request: check_runtime(request["target"], request.get("required")),
            "threads": lambda request: {"threads": checked_threads(request["threads"], available_cores())},
            "check_builder": lambda request: check_builder(request["flavor"], strict=request["strict"]),
            "build": self._build,
            "conditions": lambda request: conditions.read(request["names"]),
            "start": self._start,
            "ask": self._ask,
            "close": self._close,
            "end": lambda request: self.leave(0),
        }

    def run(self) -> NoReturn:
        """Say hello, then serve; never returns."""
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=self.leave, args=(1,)).start())
        for target in (self._listen, self._watch):
            threading.Thread(target=target, daemon=True).start()
        swept = sweep(self.folder)
        self._say({"hello": str(self.folder), "boot": boot_id(), "swept": swept, "python": sys.executable})
        while True:
            request = self._requests.get()
            try:
                reply = self._actions[request["do"]](request)
            except AgentError as error:
                reply = {"error": str(error), "kind": error.kind}
            except Exception as error:  # reported to the local side, which shows it; the agent goes on
                reply = {"error": f"{type(error).__name__}: {error}", "kind": "failed"}
            self._say(reply)

    def leave(self, status: int) -> NoReturn:
        """End the workers, remove the folder, exit; a second thread waits for that."""
        self._leaving.acquire()
        for worker in list(self._workers.values()):
            worker.process.kill()
            worker.process.wait()
        self._builder.kill()
        conditions.stop()
        remove(self.folder)
        if status == 0:
            say(self._replies, {"ended": True})
        os._exit(status)  # other threads may be waiting for input

    def _build(self, request: dict[str, Any]) -> dict[str, Any]:
        folder = self.folder / request["folder"]
        share(self.folder / request["shared"], folder)
        return self._builder.build(folder, request["options"])

    def _start(self, request: dict[str, Any]) -> dict[str, Any]:
        forced = [] if request["bucket"] is None else [request["bucket"]]
        arguments = [str(self.folder / request["subject"]), str(request["threads"]), *forced]
        command = [sys.executable, str(self.folder / ARCHIVE), "worker", *arguments]
        environment = {**os.environ, "PYTHONSAFEPATH": "1"}  # a file in the current folder shadows no module
        worker = Child(command, "the process that measures on the device", environment)
        self._workers[request["worker"]] = worker
        return {"cold_start_ms": worker.until_first_ms, **worker.first}

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        worker = self._workers[request["worker"]]
        before = usage(worker.process.pid)
        with conditions.counting(request.get("counted"), request.get("images", 0)):
            reply = worker.ask(request["request"], request["doing"], request["timeout_s"])
        return {**reply, "others_percent": before.others_percent(usage(worker.process.pid))}

    def _close(self, request: dict[str, Any]) -> dict[str, Any]:
        worker = self._workers.pop(request["worker"], None)
        if worker is not None:
            worker.close()
        return {}

    def _say(self, reply: dict[str, Any]) -> None:
        try:
            with self._speaking:
                say(self._replies, reply)
        except OSError:
            self.leave(1)

    def _listen(self) -> None:
        """Queue requests; any line counts as a sign of life, and the end of stdin ends the agent."""
        for line in sys.stdin:
            self._heard = time.monotonic()
            try:
                request = json.loads(line)
            except ValueError:
                break
            if request["do"] != "beat":
                self._requests.put(request)
        self.leave(1)

    def _watch(self) -> None:
        while time.monotonic() - self._heard < SILENCE_S:
            time.sleep(BEAT_S)
            self._say({"beat": True})
        self.leave(1)
