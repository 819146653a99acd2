"""Lanes of a comparison for the one loop: each row a process, opened and compared once before anything is timed."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from morvit_deploy.errors import MorvitError, ParityError
from morvit_deploy.measuring.compare.candidates import BUNDLE, Candidate
from morvit_deploy.measuring.compare.results.rows import NotMeasured, Row
from morvit_deploy.measuring.core.inputs import expected_file
from morvit_deploy.measuring.core.parity import PARITY_IMAGES, LogitParity, save_expected
from morvit_deploy.measuring.cpu.process import BundleProcess
from morvit_deploy.timing.conditions import read_conditions
from morvit_deploy.timing.loop import Lane, Measurer, Stages
from morvit_deploy.timing.samples import Block, Start


@dataclass(kw_only=True)
class RowLane(Lane):
    """A row that is being measured; `worker` is its process once it is prepared."""

    candidate: Candidate
    worker: BundleProcess = field(init=False)

    def row(self) -> Row:
        """All measurements, with the memory of the process as it is now."""
        own = self.candidate
        return Row(
            name=self.name,
            batch=1,
            blocks=tuple(self.blocks),
            kind=own.kind,
            runtime=own.runtime,
            precision=own.precision,
            image=own.image,
            parameters=own.parameters,
            macs_by_bucket=None if own.macs is None else dict(own.macs),
            file_bytes=own.file_bytes,
            starts=tuple(self.starts),
            memory_mib=self.worker.memory_mib(),
            published=own.published,
        )


class Rows(Measurer[RowLane]):
    """Opens and runs candidates in processes that `stack` closes."""

    def __init__(self, threads: int, stack: ExitStack) -> None:
        self.threads, self.stack = threads, stack

    def conditions(self) -> dict[str, Any]:
        return read_conditions()

    def prepare(self, lane: RowLane) -> Start:
        if lane.starts:
            lane.worker.close()
        lane.worker = lane.candidate.open(self.threads)
        self.stack.callback(lane.worker.close)
        return lane.worker.start

    def returns(self, lane: RowLane) -> None:
        """`openable` has compared the results already, so that a row that fails leaves the others to be measured."""
        return None

    def run(self, lane: RowLane, runs: int, warmup: int) -> Block:
        """At least `runs` runs; whole passes over the stream of an adaptive bundle."""
        stream = lane.candidate.stream
        if stream is None:
            return lane.worker.run(runs, warmup)
        return lane.worker.run(ceil(runs / len(stream)) * len(stream), warmup, stream)

    def look(self, lane: RowLane, runs: int, warmup: int) -> Block:
        return lane.worker.run(runs, warmup)


def openable(
    candidates: Iterable[Candidate], threads: int, stages: Stages
) -> tuple[list[Candidate], list[NotMeasured], dict[str, Any]]:
    """Open, run and compare each once: those that can be measured, the others with their errors, and the parities.

    The error of a bundle is raised: it is what the user asks about.
    """
    good: list[Candidate] = []
    refused: list[NotMeasured] = []
    parities: dict[str, Any] = {}
    for candidate in candidates:
        try:
            with stages.part(f"opening {candidate.name}"), candidate.open(threads) as worker:
                parity = _parity(candidate, worker)
        except MorvitError as error:
            if candidate.kind == BUNDLE:
                raise
            refused.append(NotMeasured(candidate.name, str(error), candidate.published))
            continue
        good.append(candidate)
        parities |= {candidate.name: parity.as_dict()} if parity else {}
    return good, refused, parities


def _parity(candidate: Candidate, worker: BundleProcess) -> LogitParity | None:
    """Of a candidate that has expected logits; ParityError where it returns others."""
    if candidate.expected is None:
        return None
    save_expected(expected_file(candidate.pixels), "logits", candidate.expected())
    found = worker.parity(PARITY_IMAGES)
    parity = LogitParity.of(
        candidate.name, f"in {candidate.runtime}", candidate.precision, found, candidate.activation
    )
    if not parity.agrees:
        raise ParityError(parity.problem)
    return parity
