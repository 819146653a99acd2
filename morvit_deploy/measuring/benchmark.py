"""Latency, cold start, load, throughput and memory of bundles, each in a process of its own. No torch.

Bundles are measured in blocks of at least ten runs of one, then of the next, in turn: run by run they would throw
each other's weights out of the cache, and one after the other they would meet different clocks.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morvit_deploy.devices import checked_threads
from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.conditions import read_conditions, warnings_about
from morvit_deploy.measuring.inputs import Source, Subject, prepare
from morvit_deploy.measuring.process import Worker
from morvit_deploy.measuring.results import BenchResult, Block, Measured, Start

DEVICES = ("cpu",)
MIN_RUNS, MAX_RUNS = 10, 300  # runs a block
BLOCK_MS = 500.0  # what a block of the slowest bundle should take, where the two above allow
BLOCKS, WARMUP, STARTS = 10, 3, 5
TIMED = (
    "warm runs: uint8 pixels in memory to every output, copies included, decoding of files excluded; "
    "cold start: new process to first answer, interpreter and imports included, files already in the system's cache"
)


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


def bench(
    bundles: str | Path | Sequence[str | Path],
    *,
    device: str = "cpu",
    threads: int | None = None,
    images: str | Path | None = None,
    upscale: bool = False,
    batch: int | None = None,
    runs: int | None = None,
    blocks: int = BLOCKS,
    warmup: int = WARMUP,
    starts: int = STARTS,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> BenchResult:
    """Measure one or several bundles in one call; times in ms, memory in MiB.

    `images` is a folder of pictures (default: synthetic ones); `threads` defaults to all cores; `batch` is for
    bundles of dynamic batch; `runs` are those of a block (default: half a second's worth, at least 10); the `warmup`
    runs before each block are not counted; `starts` new processes are timed for each bundle. `tell` hears the stage
    and `progress` the share done. Raises TargetError, BundleError or ImageError.
    """
    check_device(device)
    amount = Amount(runs, blocks, warmup, starts)
    folders = [Path(b) for b in ([bundles] if isinstance(bundles, (str, Path)) else bundles)]
    if not folders:
        raise TargetError("got no bundle, expected one or more")
    threads = checked_threads(threads)
    teller = Teller(tell, progress, total=len(folders) * (starts + blocks))
    tell("checking bundles and inputs")
    with tempfile.TemporaryDirectory(prefix="morvit-bench-") as scratch, ExitStack() as stack:
        source = Source(images, upscale, batch)
        subjects = [prepare(folder, source, Path(scratch) / f"{i}.npy") for i, folder in enumerate(folders)]
        conditions = read_conditions()
        started, workers = _start(subjects, threads, amount.starts, stack, teller)
        runs = amount.runs or _fitting_runs(workers, amount)
        taken = _in_turn(subjects, workers, runs, amount, teller)
        memory = [worker.memory_mib() for worker in workers]
    measured = tuple(map(_measured, subjects, started, taken, memory))
    conditions |= {"threads": threads, **_settings(images, runs, amount)}
    return BenchResult(device, measured, conditions, warnings_about(conditions, measured))


def check_device(device: str) -> None:
    """Raise TargetError for a device that this version does not measure."""
    if device not in DEVICES:
        raise TargetError(f"got device {device!r}; this version measures on: {', '.join(DEVICES)}")


def _start(
    subjects: list[Subject], threads: int, starts: int, stack: ExitStack, teller: Teller
) -> tuple[list[list[Start]], list[Worker]]:
    """Start each bundle's process `starts` times, in turn; the last ones stay to be measured warm."""
    times: list[list[Start]] = [[] for _ in subjects]
    workers: list[Worker] = []
    for number in range(1, starts + 1):
        for subject, own in zip(subjects, times, strict=True):
            with teller.part(f"start {number} of {starts}: {subject.bundle.name}"):
                worker = Worker(subject.bundle, subject.manifest.target, subject.pixels, threads)
                stack.callback(worker.close)
                own.append(worker.start)
                if number < starts:
                    worker.close()
                else:
                    workers.append(worker)
    return times, workers


def _fitting_runs(workers: list[Worker], amount: Amount) -> int:
    """Runs a block, the same for all, from a short look at each bundle's speed."""
    slowest_ms = max(worker.run(runs=5, warmup=max(1, amount.warmup)).median_ms for worker in workers)
    return min(MAX_RUNS, max(MIN_RUNS, math.ceil(BLOCK_MS / slowest_ms)))


def _in_turn(
    subjects: list[Subject], workers: list[Worker], runs: int, amount: Amount, teller: Teller
) -> list[list[Block]]:
    """A block of each bundle, then the next block of each: the blocks of each bundle."""
    taken: list[list[Block]] = [[] for _ in workers]
    for number in range(1, amount.blocks + 1):
        for subject, worker, own in zip(subjects, workers, taken, strict=True):
            with teller.part(f"block {number} of {amount.blocks}: {subject.bundle.name}"):
                own.append(worker.run(runs, amount.warmup))
    return taken


def _measured(
    subject: Subject, starts: list[Start], blocks: list[Block], memory: dict[str, float]
) -> Measured:
    manifest = subject.manifest
    return Measured(
        bundle=str(subject.bundle),
        target=manifest.target,
        precision=manifest.precision,
        form=manifest.form,
        batch=subject.batch,
        macs=dict(manifest.macs),
        file_bytes=sum(file.bytes for file in manifest.files),
        inputs_digest=subject.inputs_digest,
        starts=tuple(starts),
        blocks=tuple(blocks),
        memory_mib=memory,
    )


def _settings(images: str | Path | None, runs: int, amount: Amount) -> dict[str, Any]:
    """What was chosen for this measurement; `inputs` says where the pictures came from."""
    return {
        "blocks": amount.blocks,
        "runs_per_block": runs,
        "warmup_runs_per_block": amount.warmup,
        "starts": amount.starts,
        "inputs": "synthetic pictures" if images is None else f"pictures of {images}",
        "timed": TIMED,
    }
