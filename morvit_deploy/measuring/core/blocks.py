"""Bundles measured in turn, each in a process of its own: a block of one, then of the next, and again. No torch.

A block has at least ten runs: run by run the bundles would throw each other's weights out of the cache, and one after
the other they would meet different clocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field

from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.core.process import Measurer, OpenWorker, open_here
from morvit_deploy.measuring.core.results import Measured
from morvit_deploy.measuring.core.samples import Block, Start
from morvit_deploy.measuring.mix.runs import MixRuns

MIN_RUNS, MAX_RUNS = 10, 300  # runs a block
BLOCK_MS = 500.0  # what a block of the slowest bundle should take, where the two above allow
BLOCKS, WARMUP, STARTS = 10, 3, 5
_LOOK = 5  # runs of a first look at a bundle's speed


@dataclass(frozen=True)
class Amount:
    """How much to measure; `runs` None means as many a block as BLOCK_MS allows."""

    runs: int | None = None
    blocks: int = BLOCKS
    warmup: int = WARMUP  # runs before each block, not counted
    starts: int = STARTS  # new processes for each bundle

    def __post_init__(self) -> None:
        if self.runs is not None and self.runs < MIN_RUNS:
            raise TargetError(
                f"runs: got {self.runs} a block, expected at least {MIN_RUNS}; a shorter block times a cold cache"
            )
        for name, least in (("blocks", 1), ("warmup", 0), ("starts", 1)):
            if getattr(self, name) < least:
                raise TargetError(f"{name}: got {getattr(self, name)}, expected at least {least}")


@dataclass
class Teller:
    """Tells the stage and, after each part of the work, the share done, 0 to 1."""

    stage: Callable[[str], None]
    share: Callable[[float], None]
    total: int = 1
    done: int = 0

    @contextmanager
    def part(self, stage: str) -> Iterator[None]:
        """One of `total` parts."""
        self.stage(stage)
        yield
        self.done += 1
        self.share(self.done / self.total)


@dataclass
class Lane:
    """A bundle that is being measured."""

    subject: Subject
    name: str
    worker: Measurer
    starts: list[Start]
    blocks: list[Block] = field(default_factory=list)
    mix: MixRuns | None = None
    counted: Callable[[], AbstractContextManager[object]] = nullcontext  # around blocks whose energy counts

    def take(self, number: int, runs: int, warmup: int) -> None:
        """Block `number`, at least `runs` long; of a bundle that chooses buckets in whole passes over its stream."""
        stream = self.subject.stream
        if stream is None:
            with self.counted():
                self.blocks.append(self.worker.run(runs, warmup))
            return
        passes = math.ceil(runs / len(stream))
        with self.counted():
            self.blocks.append(self.worker.run(passes * len(stream), warmup, stream))
        if self.mix is not None:
            self.mix.take(number)

    def keep_whole(self) -> None:
        """After a block that ended early: of the mix only what every part has."""
        if self.mix is not None and not self.mix.keep_whole():
            self.mix = None

    def measured(self, memory_mib: dict[str, float]) -> Measured:
        """All that was taken."""
        manifest = self.subject.manifest
        return Measured(
            bundle=self.name,
            target=manifest.target,
            precision=manifest.precision,
            form=manifest.form,
            batch=self.subject.batch,
            macs=dict(manifest.macs),
            file_bytes=sum(file.bytes for file in manifest.files),
            inputs_digest=self.subject.inputs_digest,
            starts=tuple(self.starts),
            blocks=tuple(self.blocks),
            memory_mib=memory_mib,
            mix=self.mix.mix(self.blocks) if self.mix else None,
        )


def start_lanes(
    subjects: Sequence[tuple[str, Subject]],
    threads: int,
    starts: int,
    stack: ExitStack,
    teller: Teller,
    open_worker: OpenWorker = open_here,
) -> list[Lane]:
    """Start each named bundle's process `starts` times, in turn; the last ones stay to be measured warm."""
    times: list[list[Start]] = [[] for _ in subjects]
    lanes: list[Lane] = []
    for number in range(1, starts + 1):
        for (name, subject), own in zip(subjects, times, strict=True):
            with teller.part(f"start {number} of {starts}: {name}"):
                worker = open_worker(subject, threads, None)
                stack.callback(worker.close)
                own.append(worker.start)
                if number < starts:
                    worker.close()
                else:
                    lanes.append(Lane(subject, name, worker, own))
    return lanes


def fitting_runs(lanes: Sequence[Lane], warmup: int, batch: int = 1) -> int:
    """Runs a block, the same for all, from a short look at each bundle's speed; `batch` images count as many runs."""
    look = math.ceil(_LOOK / batch)
    slowest_ms = max(lane.worker.run(look, max(1, warmup)).median_ms for lane in lanes)
    return min(MAX_RUNS, max(math.ceil(MIN_RUNS / batch), math.ceil(BLOCK_MS / slowest_ms)))


def take_in_turn(lanes: Sequence[Lane], runs: int, warmup: int, blocks: int, teller: Teller) -> None:
    """A block of each bundle, then the next block of each."""
    for number in range(1, blocks + 1):
        for lane in lanes:
            with teller.part(f"block {number} of {blocks}: {lane.name}"):
                lane.take(number, runs, warmup)
