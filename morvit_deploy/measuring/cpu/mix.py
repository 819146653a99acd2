"""Measures the blocks of a `Mix`: single buckets, pictures of one kind, two orders of pictures. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.cpu.process import BundleProcess, OpenWorker, open_here
from morvit_deploy.measuring.mix.latency import Pair
from morvit_deploy.measuring.mix.mix import Mix
from morvit_deploy.timing.arithmetic import OVERFLOWED, alternating, grouped
from morvit_deploy.timing.samples import Block

Job = tuple[BundleProcess, Sequence[int], int]  # who runs, which rounds in turn, how many runs


class MixRuns:
    """A bundle's blocks besides its stream; every bucket has a process of its own that `stack` closes.

    First every picture is run once, untimed, to find its kind.
    """

    def __init__(
        self,
        subject: Subject,
        worker: BundleProcess,
        threads: int,
        stack: ExitStack,
        runs: int,
        warmup: int,
        open_worker: OpenWorker = open_here,
    ) -> None:
        self.subject, self.worker, self.runs, self.warmup = subject, worker, runs, warmup
        surveyed = worker.run(len(subject.rounds), 0, subject.rounds)
        self.kinds = tuple(surveyed.kinds[: subject.images])  # the last round may be padded
        self.forced: dict[str, BundleProcess] = {}
        for name in (bucket.name for bucket in subject.manifest.plan.buckets):
            forced = open_worker(subject, threads, name)
            stack.callback(forced.close)
            self.forced[name] = forced
        self.alone: dict[str, list[Block]] = {name: [] for name in self.forced}
        self.repeated: dict[str, tuple[list[Block], list[Block]]] = {}
        self.orders: tuple[list[Block], list[Block]] = ([], [])

    def take(self, number: int) -> None:
        """Measure the blocks that follow block `number` of the stream."""
        pictures = self._pictures()
        for kind, own in pictures.items():
            both = (self.worker, own, self.runs), (self._alone_of(kind), own, self.runs)
            self._both(number, self.repeated.setdefault(kind, ([], [])), both)
        for name, forced in self.forced.items():
            if name in pictures:
                self.alone[name].append(self.repeated[name][1][-1])
            else:
                stream = self.subject.stream or self.subject.rounds
                self.alone[name].append(forced.run(self.runs, self.warmup, stream))
        groups = [own for kind, own in pictures.items() if kind != OVERFLOWED]
        if len(groups) > 1:
            changing, in_groups = alternating(groups, self.runs), grouped(groups, self.runs)
            both = (self.worker, changing, len(changing)), (self.worker, in_groups, len(in_groups))
            self._both(number, self.orders, both)

    def keep_whole(self) -> bool:
        """After a `take` that was cut off, drop incomplete blocks; False if none is left."""
        pairs = [blocks for both in (*self.repeated.values(), self.orders) for blocks in both if blocks]
        taken = [*self.alone.values(), *pairs]
        whole = min(len(blocks) for blocks in taken)
        for blocks in taken:
            del blocks[whole:]
        return whole > 0

    def mix(self, stream: Sequence[Block]) -> Mix:
        """All blocks, with those of the bundle's stream."""
        return Mix(
            plan=self.subject.manifest.plan,
            batch=self.subject.batch,
            kinds=self.kinds,
            stream=tuple(stream),
            alone={name: tuple(blocks) for name, blocks in self.alone.items()},
            repeated={kind: Pair(*map(tuple, blocks)) for kind, blocks in self.repeated.items()},
            orders=Pair(*map(tuple, self.orders)) if self.orders[0] else None,
        )

    def _pictures(self) -> dict[str, list[int]]:
        """Rounds by kind, in the order of the buckets; empty where a round holds several images."""
        if self.subject.batch > 1:
            return {}
        kinds = (*self.forced, OVERFLOWED)
        found = {kind: [i for i, own in enumerate(self.kinds) if own == kind] for kind in kinds}
        return {kind: own for kind, own in found.items() if own}

    def _alone_of(self, kind: str) -> BundleProcess:
        """The process of the bucket that runs last, which is `full` after an overflow."""
        return list(self.forced.values())[-1] if kind == OVERFLOWED else self.forced[kind]

    def _both(self, number: int, taken: tuple[list[Block], list[Block]], both: tuple[Job, Job]) -> None:
        """Run a block of each; the order alternates, so that neither side gains by it."""
        for side in (0, 1) if number % 2 else (1, 0):
            worker, order, runs = both[side]
            taken[side].append(worker.run(runs, self.warmup, order))
