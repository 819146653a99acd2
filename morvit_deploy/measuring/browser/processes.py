"""Bundles in workers of the page, as lanes for the loop. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from morvit_deploy.exporters.onnx.board import bucket_graphs
from morvit_deploy.machine.extras import is_missing
from morvit_deploy.measuring.browser.conditions import before
from morvit_deploy.measuring.browser.files import alone_of
from morvit_deploy.measuring.browser.program import Program
from morvit_deploy.measuring.browser.runtime import MODULES
from morvit_deploy.measuring.browser.server import PageServer
from morvit_deploy.measuring.browser.worker import PageWorker, Place
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.core.request import BenchRequest
from morvit_deploy.measuring.cpu.lanes import BundleLane, BundleProcesses


class PageProcesses(BundleProcesses):
    """Opens bundles in workers of the page; `workers` are all that were opened."""

    place = "in the browser"

    def __init__(
        self,
        server: PageServer,
        places: Sequence[Place],
        backend: str,
        program: Program | None,
        request: BenchRequest,
        stack: ExitStack,
    ) -> None:
        self.server, self.places, self.program = server, places, program
        self.options = {"backend": backend, "runtime": MODULES[backend], "threads": request.threads}
        self.workers: list[PageWorker] = []
        self._graphs: dict[Path, dict[str, bytes]] = {}
        super().__init__(
            request.threads or 0,
            stack,
            mixes=not is_missing("onnx"),
            open_worker=self._open,
            tell=request.stages.stage,
        )

    def conditions(self) -> dict[str, Any]:
        return before(self.server.page, self.program)

    def last_of(self, lane: BundleLane) -> PageWorker:
        """The worker that ran the lane's blocks."""
        return next(worker for worker in self.workers if worker is lane.worker)

    def _open(self, subject: Subject, threads: int, bucket: str | None = None) -> PageWorker:
        place = next(one for one in self.places if one.subject is subject)
        if bucket is not None:
            place = self._alone(place, bucket)
        usage = (lambda: None) if self.program is None else self.program.usage
        worker = PageWorker(self.server.page, place, self.options, usage)
        self.workers.append(worker)
        return worker

    def _alone(self, place: Place, bucket: str) -> Place:
        """Offer one bucket of a bundle to the page."""
        subject = place.subject
        if subject.bundle not in self._graphs:
            self._graphs[subject.bundle] = bucket_graphs(subject.bundle, subject.manifest)
        graph = self._graphs[subject.bundle][bucket]
        alone, files = alone_of(place, bucket, graph, self.server.files)
        self.server.files |= files
        return alone
