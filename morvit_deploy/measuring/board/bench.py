"""Measures bundles in turn on a device over SSH; complete blocks are kept when it is lost. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from morvit_deploy.agent.core.releases import is_older
from morvit_deploy.errors import LostError, TargetError
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.files import temporary
from morvit_deploy.machine.dependencies import installed
from morvit_deploy.machine.integer_kernels import kernels_of
from morvit_deploy.measuring.board.engines import DeviceEngines
from morvit_deploy.measuring.board.jetson import check_jetson, jetson_warnings, with_energy
from morvit_deploy.measuring.board.shipping import pack
from morvit_deploy.measuring.board.worker import RemoteWorker
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.core.parity import LogitParity
from morvit_deploy.measuring.core.request import TIMED, BenchRequest, settings
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.cpu.lanes import BundleLane, BundleProcesses, parities, saturating
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.loader import agent_archive
from morvit_deploy.remote.session import Session
from morvit_deploy.timing.loop import measure
from morvit_deploy.timing.result import warnings_about
from morvit_deploy.timing.samples import Block

TIMED_THERE = (
    TIMED
    + "; on the device, by its own clock, network excluded; a cold start compiles the agent's Python code"
)


def bench_remote(request: BenchRequest, host: Host, readers: Sequence[str]) -> BenchResult:
    """`bench` on `host`. The `partial` of a LostError is the BenchResult of the complete blocks.

    `readers` name what reads the device's conditions, in `agent.conditions.READERS`.
    """
    board = Board(request, host, list(readers))
    try:
        with temporary("bench") as scratch, ExitStack() as stack:
            measured = board.measured(scratch, stack)
    except (LostError, TargetError) as error:
        if isinstance(error, TargetError) and not any(lane.blocks for lane in board.lanes):
            raise
        lost = error if isinstance(error, LostError) else LostError(str(error))
        lost.partial = board.partial(str(lost))
        raise lost from None
    return BenchResult(request.device, measured, board.known, board.warnings(measured))


class Board:
    """A device over SSH on which bundles are measured; `known` are the conditions so far."""

    def __init__(self, request: BenchRequest, host: Host, readers: list[str]) -> None:
        self.request, self.host, self.readers = request, host, readers
        self.lanes: list[BundleLane] = []
        self.known: dict[str, Any] = {}

    def measured(self, scratch: Path, stack: ExitStack) -> tuple[MeasuredBundle, ...]:
        """Send everything, and run the loop."""
        subjects = self.request.subjects(scratch)
        places = {str(number): subject for number, subject in enumerate(subjects)}
        engines = DeviceEngines(places, scratch / "engines", self.request.stages.stage)
        session = stack.enter_context(self._session(places, engines))
        self._read_before(session, engines)
        device = RemoteProcesses(session, places, self.known, stack, self.request)
        self.lanes += [BundleLane.of(subject) for subject in subjects]
        measure(device, self.lanes, self.request.amount, self.request.stages)
        measured = tuple(lane.measured() for lane in self.lanes)
        after = self.known["device_conditions"]["after"] = _read(session, self.readers)
        self.known["drops"] = list(session.drops)
        return with_energy(measured, after)

    def partial(self, why: str) -> BenchResult:
        """The complete blocks when the device was lost; a bundle without one is left out."""
        for lane in self.lanes:
            lane.keep_whole()
        measured = tuple(lane.measured({}) for lane in self.lanes if lane.blocks)
        return BenchResult(self.request.device, measured, self.known, self.warnings(measured), partial=why)

    def warnings(self, measured: Sequence[MeasuredBundle]) -> tuple[str, ...]:
        """What makes figures or answers on this device doubtful."""
        if "machine" not in self.known:
            return _warnings(self.known, measured)
        kernels = kernels_of(self.known["machine"])
        own = saturating(self.lanes, kernels, f" on {self.host.address}")
        return (*_warnings(self.known, measured), *own)

    def _session(self, places: dict[str, Subject], engines: DeviceEngines) -> Session:
        shipment: dict[str, Path | bytes] = {}
        for place, subject in places.items():
            shipment |= pack(subject, str(subject.bundle), place)
        return Session(
            self.host,
            shipment,
            list(dict.fromkeys(subject.manifest.target for subject in places.values())),
            self.request.stages.stage,
            settle=engines.settle,
            prepare=engines.prepare,
            hear=engines.hear,
            required=_required(places.values()),
        )

    def _read_before(self, session: Session, engines: DeviceEngines) -> None:
        """Record the device's conditions with the keys of `read_conditions`, and those of the session."""
        before = _read(session, self.readers)
        check_jetson(self.host.address, before)
        threads = {"do": "threads", "threads": self.request.threads}
        built = engines.built()
        self.known |= {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **dict(next(iter(before.values()), {})),
            "versions": {"morvit-deploy": installed("morvit-deploy") or "unknown", **session.versions},
            "host": self.host.address,
            "agent": {"bytes": len(agent_archive()), "started_s": session.started_s, "swept": session.swept},
            "device_conditions": {"before": before},
            **({"engines": built} if built else {}),
            "threads": _ask(session, threads, "counting cores")["threads"],
            **settings(self.request.source, self.request.amount, TIMED_THERE),
            "runs_per_block": self.request.amount.runs,
        }


class RemoteProcesses(BundleProcesses):
    """The same with processes on the device; `known` records the loop's findings, in case the device is lost."""

    def __init__(
        self,
        session: Session,
        places: dict[str, Subject],
        known: dict[str, Any],
        stack: ExitStack,
        request: BenchRequest,
    ) -> None:
        def open_worker(subject: Subject, threads: int, bucket: str | None = None) -> RemoteWorker:
            place = next(place for place, own in places.items() if own is subject)
            return RemoteWorker(session, place, threads, bucket, subject.batch)

        super().__init__(known["threads"], stack, open_worker=open_worker, tell=request.stages.stage)
        self.known, self.place = known, f"on {session.host.address}"

    def conditions(self) -> dict[str, Any]:
        return self.known

    def expect(self, subject: Subject) -> None:
        """Nothing to do: they were sent with the bundle."""

    def returns(self, lane: BundleLane) -> LogitParity:
        lane.parity = super().returns(lane)
        self.known.setdefault("parity", {}).update(parities([lane]))
        return lane.parity

    def settle(self, lane: BundleLane, runs: int, warmup: int) -> None:
        self.known["runs_per_block"] = runs
        super().settle(lane, runs, warmup)

    def run(self, lane: BundleLane, runs: int, warmup: int) -> Block:
        assert isinstance(lane.worker, RemoteWorker)
        with lane.worker.counting():  # only these runs count for the energy
            return super().run(lane, runs, warmup)


def _required(subjects: Iterable[Subject]) -> dict[str, str]:
    """Library to the oldest release that runs all bundles."""
    required: dict[str, str] = {}
    for subject in subjects:
        manifest = subject.manifest
        for library, lowest in find_target(manifest.target).required_by(subject.bundle, manifest).items():
            if is_older(required.get(library, ""), lowest):
                required[library] = lowest
    return required


def _read(session: Session, readers: list[str]) -> dict[str, Any]:
    return _ask(session, {"do": "conditions", "names": readers}, "reading the device's conditions")


def _ask(session: Session, request: dict[str, Any], doing: str) -> dict[str, Any]:
    return session.resuming(lambda: session.ask(request, doing))


def _warnings(known: dict[str, Any], measured: Sequence[MeasuredBundle]) -> tuple[str, ...]:
    dropped = [
        f"the connection was lost {why}, and the measurement went on in new processes"
        for why in known.get("drops", ())
    ]
    usual = warnings_about(known, measured) if measured else ()
    return (*usual, *jetson_warnings(known, measured), *dropped)
