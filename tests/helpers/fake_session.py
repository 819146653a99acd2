"""A device over SSH that is this machine: its session runs the local worker on what was shipped. No sshd."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from morvit_deploy.agent.core.recipe import EXPECTED, PIXELS
from morvit_deploy.errors import LostError
from morvit_deploy.measuring.core.inputs import expected_file
from morvit_deploy.measuring.cpu.process import Worker
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.shipment import Shipment
from morvit_deploy.timing.conditions import read_conditions

T = TypeVar("T")


class FakeSession:
    """In place of `remote.session.Session`. `lost_after` counts the requests to workers until the device is gone."""

    lost_after: int | None = None
    spoil: Callable[[dict[str, Any]], dict[str, Any]] = staticmethod(lambda answer: answer)

    def __init__(self, host: Host, shipment: Shipment, targets: list[str], tell: Any, **hooks: Any) -> None:
        self.host, self.shipment, self.hooks = host, shipment, hooks
        self.versions: dict[str, str] = {}
        self.started_s, self.swept, self.generation, self.is_open = 0.0, 0, 1, True
        self.drops: list[str] = []
        self.workers: dict[int, Worker] = {}
        self.asked = 0

    def __enter__(self) -> FakeSession:
        self.hooks["settle"](self)
        self.hooks["prepare"](self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self.workers.values():
            worker.close()
        self.is_open = False

    def resuming(self, request: Callable[[], T]) -> T:
        return request()

    def ask(self, request: dict[str, Any], doing: str, timeout_s: float = 0) -> dict[str, Any]:
        if request["do"] == "ask":
            return self._worker(request)
        if request["do"] == "start":
            worker = self.workers[request["worker"]] = self._start(request)
            return vars(worker.start)
        if request["do"] == "close":
            self.workers[request["worker"]].close()
            return {}
        return {"threads": 1} if request["do"] == "threads" else {"linux": read_conditions()}

    def _start(self, request: dict[str, Any]) -> Worker:
        place = request["subject"]
        bundle, pixels = (self.shipment[f"{place}/{name}"] for name in ("model.onnx", PIXELS))
        assert isinstance(bundle, Path) and isinstance(pixels, Path)
        expected = self.shipment[f"{place}/{EXPECTED}"]
        assert isinstance(expected, bytes)
        expected_file(pixels).write_bytes(expected)
        return Worker(bundle.parent, "onnx", pixels, request["threads"], request["bucket"])

    def _worker(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        if self.lost_after is not None and self.asked > self.lost_after:
            self.is_open = False
            raise LostError("board was lost while running")
        answer = self.workers[request["worker"]]._ask(request["request"], request["doing"], 60.0)
        return self.spoil(answer | {"others_percent": 0.0})
