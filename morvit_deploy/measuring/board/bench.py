"""Bundles measured in turn on a device over SSH; what was whole is kept when the device is lost. No torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from morvit_deploy.errors import LostError, TargetError
from morvit_deploy.machine.dependencies import installed
from morvit_deploy.measuring.board.engines import DeviceEngines
from morvit_deploy.measuring.board.jetson import check_jetson, jetson_warnings, with_energy
from morvit_deploy.measuring.board.parity import judged
from morvit_deploy.measuring.board.shipping import pack, parity_rounds
from morvit_deploy.measuring.board.worker import RemoteWorker
from morvit_deploy.measuring.core.blocks import Amount, Lane, Teller, fitting_runs, start_lanes, take_in_turn
from morvit_deploy.measuring.core.conditions import warnings_about
from morvit_deploy.measuring.core.devices import check_targets, find_device
from morvit_deploy.measuring.core.inputs import Source, Subject, prepare
from morvit_deploy.measuring.core.results import BenchResult, Measured
from morvit_deploy.measuring.mix.runs import MixRuns
from morvit_deploy.remote.archive import agent_archive
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.session import Session


def bench_remote(
    folders: Sequence[Path],
    device: str,
    host: Host,
    source: Source,
    amount: Amount,
    threads: int | None,
    settings: dict[str, Any],
    tell: Callable[[str], None],
    progress: Callable[[float], None],
) -> BenchResult:
    """As `bench`, on `host`. A LostError carries in `partial` the BenchResult of the blocks that were whole."""
    teller = Teller(tell, progress, total=len(folders) * (amount.starts + amount.blocks))
    lanes: list[Lane] = []
    known: dict[str, Any] = {}
    counting: dict[int, Callable[[], AbstractContextManager[None]]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="morvit-bench-") as scratch, ExitStack() as stack:
            tell("checking bundles and inputs")
            subjects = [
                prepare(folder, source, Path(scratch) / f"{i}.npy") for i, folder in enumerate(folders)
            ]
            check_targets(device, subjects)
            places = {str(number): subject for number, subject in enumerate(subjects)}
            shipment: dict[str, Path | bytes] = {}
            for place, subject in places.items():
                shipment |= pack(subject, str(subject.bundle), place)
            engines = DeviceEngines(places, Path(scratch) / "engines", tell)
            session = stack.enter_context(
                Session(
                    host,
                    shipment,
                    list(dict.fromkeys(subject.manifest.target for subject in subjects)),
                    tell,
                    settle=engines.settle,
                    prepare=engines.prepare,
                    hear=engines.hear,
                )
            )
            readers = list(find_device(device, host=True).readers)
            known |= _before(session, host, readers)
            check_jetson(host.address, known["device_conditions"]["before"])
            if facts := engines.facts():
                known["engines"] = facts
            threads = _ask(session, {"do": "threads", "threads": threads}, "counting cores")["threads"]
            known |= {"threads": threads, **settings, "runs_per_block": amount.runs}

            def open_worker(subject: Subject, threads: int, bucket: str | None = None) -> RemoteWorker:
                place = next(place for place, own in places.items() if own is subject)
                worker = RemoteWorker(session, place, threads, bucket, subject.batch)
                counting[id(worker)] = worker.counting
                return worker

            known["parity"] = {}
            for subject in subjects:
                tell(f"comparing the answers of {subject.bundle} on {host.address} with those here")
                known["parity"][str(subject.bundle)] = _parity(subject, host, open_worker(subject, threads))
            named = [(str(subject.bundle), subject) for subject in subjects]
            lanes += start_lanes(named, threads, amount.starts, stack, teller, open_worker)
            runs = known["runs_per_block"] = amount.runs or fitting_runs(lanes, amount.warmup)
            for lane in lanes:
                lane.counted = counting[id(lane.worker)]
                if lane.subject.manifest.plan.adaptive:
                    tell(f"looking at the buckets of {lane.name}")
                    more = (runs, amount.warmup, open_worker)
                    lane.mix = MixRuns(lane.subject, lane.worker, threads, stack, *more)
            take_in_turn(lanes, runs, amount.warmup, amount.blocks, teller)
            measured = tuple(lane.measured(lane.worker.memory_mib()) for lane in lanes)
            known["device_conditions"]["after"] = _read(session, readers)
            measured = with_energy(measured, known["device_conditions"]["after"])
            known["drops"] = list(session.drops)
    except (LostError, TargetError) as error:
        if isinstance(error, TargetError) and not any(lane.blocks for lane in lanes):
            raise
        lost = error if isinstance(error, LostError) else LostError(str(error))
        lost.partial = _partial(device, lanes, known, str(lost))
        raise lost from None
    return BenchResult(device, measured, known, _warnings(known, measured))


def _parity(subject: Subject, host: Host, worker: RemoteWorker) -> dict[str, Any]:
    """In a process of its own, that ends before anything is timed."""
    try:
        found = worker.parity(parity_rounds(subject))
    finally:
        worker.close()
    return judged(str(subject.bundle), host.address, subject.manifest.precision, found)


def _before(session: Session, host: Host, readers: list[str]) -> dict[str, Any]:
    """Conditions of the device in the words of `read_conditions`, and what the session itself tells."""
    before = _read(session, readers)
    first = dict(next(iter(before.values()), {}))
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **first,
        "versions": {"morvit-deploy": installed("morvit-deploy") or "unknown", **session.versions},
        "host": host.address,
        "agent": {"bytes": len(agent_archive()), "started_s": session.started_s, "swept": session.swept},
        "device_conditions": {"before": before},
    }


def _read(session: Session, readers: list[str]) -> dict[str, Any]:
    return _ask(session, {"do": "conditions", "names": readers}, "reading the device's conditions")


def _ask(session: Session, request: dict[str, Any], doing: str) -> dict[str, Any]:
    return session.resuming(lambda: session.ask(request, doing))


def _partial(device: str, lanes: Sequence[Lane], known: dict[str, Any], why: str) -> BenchResult:
    """What was whole when the device was lost; a bundle without a block is left out."""
    for lane in lanes:
        lane.keep_whole()
    measured = tuple(lane.measured({}) for lane in lanes if lane.blocks)
    return BenchResult(device, measured, known, _warnings(known, measured), partial=why)


def _warnings(known: dict[str, Any], measured: Sequence[Measured]) -> tuple[str, ...]:
    dropped = [
        f"the connection was lost {why}, and the measurement went on in new processes"
        for why in known.get("drops", ())
    ]
    usual = warnings_about(known, measured) if measured else ()
    return (*usual, *jetson_warnings(known, measured), *dropped)
