"""Latency, cold start, load, throughput and memory of bundles, each in a process of its own. No torch.

Bundles are measured in blocks of at least ten runs of one, then of the next, in turn: run by run they would throw
each other's weights out of the cache, and one after the other they would meet different clocks.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bench_conditions import read_conditions, warnings_about
from morvit_deploy.bench_process import Worker
from morvit_deploy.bench_results import BenchResult, Block, Measured, Start
from morvit_deploy.bundle import Manifest, open_manifest
from morvit_deploy.calibration.images import open_images
from morvit_deploy.devices import available_cores
from morvit_deploy.errors import TargetError
from morvit_deploy.pixels import Pixels, digest, synthetic_images

DEVICES = ("cpu",)
IMAGES = 16  # different pictures in turn, at least one batch
MIN_RUNS, MAX_RUNS = 10, 300  # runs a block
BLOCK_MS = 500.0  # what a block of the slowest bundle should take, where MIN_RUNS allows
BLOCKS, WARMUP, STARTS = 10, 3, 5
TIMED = (
    "warm runs: uint8 pixels in memory to every output, copies included, decoding of files excluded; "
    "cold start: new process to first answer, interpreter and imports included, file cache warm"
)


@dataclass(frozen=True)
class Subject:
    """A bundle to measure and its inputs, uint8 (rounds, batch, height, width, 3), as a .npy file."""

    bundle: Path
    manifest: Manifest
    pixels: Path
    batch: int
    inputs_digest: str


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
    """Measure one or several bundles in one call.

    `images` is a folder of pictures (default: synthetic ones); `threads` defaults to all cores; `batch` is for
    bundles of dynamic batch; `runs` a block defaults to half a second's worth, at least 10; `warmup` runs before each
    block are not counted; `starts` new processes are timed. `tell` hears the stage, `progress` the share done, 0 to 1.
    Raises TargetError, BundleError or ImageError.
    """
    _check(device, runs, blocks, warmup, starts)
    folders = [Path(b) for b in ([bundles] if isinstance(bundles, (str, Path)) else bundles)]
    threads = threads or available_cores()
    tell("checking bundles and inputs")
    with tempfile.TemporaryDirectory(prefix="morvit-bench-") as scratch, ExitStack() as stack:
        subjects = [
            _subject(folder, Path(scratch) / f"{i}.npy", images, batch, upscale)
            for i, folder in enumerate(folders)
        ]
        conditions = read_conditions()
        total = len(subjects) * (starts + blocks)
        step = _Steps(total, progress)
        workers, started = _start(subjects, threads, starts, stack, tell, step)
        runs = runs or _fitting_runs(workers, warmup)
        taken = _in_turn(subjects, workers, runs, blocks, warmup, tell, step)
        memory = [worker.memory_mib() for worker in workers]
    measured = tuple(map(_measured, subjects, started, taken, memory))
    conditions |= _settings(threads, images, subjects, runs, blocks, warmup, starts)
    return BenchResult(device, measured, conditions, warnings_about(conditions, measured))


def _check(device: str, runs: int | None, blocks: int, warmup: int, starts: int) -> None:
    if device not in DEVICES:
        raise TargetError(f"got device {device!r}; this version measures: {', '.join(DEVICES)}")
    if runs is not None and runs < MIN_RUNS:
        raise TargetError(f"got {runs} runs a block, expected at least {MIN_RUNS}: shorter blocks time the cache's refilling")
    for name, value, least in (("blocks", blocks, 1), ("warmup", warmup, 0), ("starts", starts, 1)):
        if value < least:
            raise TargetError(f"{name}: got {value}, expected at least {least}")


def _subject(folder: Path, file: Path, images: str | Path | None, batch: int | None, upscale: bool) -> Subject:
    manifest = open_manifest(folder)
    size = _batch_of(folder, manifest, batch)
    count = max(IMAGES, size)
    if images is None:
        pixels = synthetic_images(count, manifest.config.image_size)
    else:
        pixels = open_images(images, manifest.config, limit=count, upscale=upscale).all()
    np.save(file, _rounds(pixels, size), allow_pickle=False)
    return Subject(folder, manifest, file, size, digest(pixels))


def _batch_of(folder: Path, manifest: Manifest, asked: int | None) -> int:
    if manifest.batch == "dynamic":
        return asked or 1
    if asked not in (None, manifest.batch):
        raise TargetError(
            f"got batch {asked}, but {folder} was exported for batch {manifest.batch}; export it with --batch dynamic"
        )
    return int(manifest.batch)


def _rounds(pixels: Pixels, batch: int) -> Pixels:
    """(n, height, width, 3) to (rounds, batch, height, width, 3): every picture at least once, in a cycle."""
    rounds = math.ceil(len(pixels) / batch)
    order = np.arange(rounds * batch) % len(pixels)
    return pixels[order].reshape(rounds, batch, *pixels.shape[1:])


class _Steps:
    """Counts finished parts and tells the share done."""

    def __init__(self, total: int, progress: Callable[[float], None]) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def __call__(self) -> None:
        self._done += 1
        self._progress(self._done / self._total)


def _start(
    subjects: list[Subject],
    threads: int,
    starts: int,
    stack: ExitStack,
    tell: Callable[[str], None],
    step: Callable[[], None],
) -> tuple[list[Worker], list[tuple[Start, ...]]]:
    """Start each bundle's process `starts` times, in turn; the last ones stay to be measured warm."""
    times: list[list[Start]] = [[] for _ in subjects]
    workers = []
    for number in range(starts):
        for subject, own in zip(subjects, times, strict=True):
            tell(f"starting {subject.bundle.name}, {number + 1} of {starts}")
            worker = Worker(subject.bundle, subject.manifest.target, subject.pixels, threads)
            own.append(worker.start)
            if number == starts - 1:
                workers.append(stack.enter_context(worker))
            else:
                worker.close()
            step()
    return workers, [tuple(own) for own in times]


def _fitting_runs(workers: list[Worker], warmup: int) -> int:
    """Runs a block, the same for all, from a short look at each bundle's speed."""
    slowest_ms = max(worker.run(runs=3, warmup=max(1, warmup)).median_ms for worker in workers)
    return min(MAX_RUNS, max(MIN_RUNS, math.ceil(BLOCK_MS / slowest_ms)))


def _in_turn(
    subjects: list[Subject],
    workers: list[Worker],
    runs: int,
    blocks: int,
    warmup: int,
    tell: Callable[[str], None],
    step: Callable[[], None],
) -> list[tuple[Block, ...]]:
    taken: list[list[Block]] = [[] for _ in workers]
    for number in range(blocks):
        for subject, worker, own in zip(subjects, workers, taken, strict=True):
            tell(f"running {subject.bundle.name}, block {number + 1} of {blocks}")
            own.append(worker.run(runs, warmup))
            step()
    return [tuple(own) for own in taken]


def _measured(
    subject: Subject, starts: tuple[Start, ...], blocks: tuple[Block, ...], memory: dict[str, float]
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
        starts=starts,
        blocks=blocks,
        memory_mib=memory,
    )


def _settings(
    threads: int,
    images: str | Path | None,
    subjects: list[Subject],
    runs: int,
    blocks: int,
    warmup: int,
    starts: int,
) -> dict[str, Any]:
    """What was chosen for this measurement; `inputs` says where the pictures came from."""
    return {
        "threads": threads,
        "runs_per_block": runs,
        "blocks": blocks,
        "warmup_runs_per_block": warmup,
        "starts": starts,
        "order": "blocks of one bundle, then the next, in turn" if len(subjects) > 1 else "one bundle",
        "inputs": "synthetic pictures" if images is None else f"pictures of {images}",
        "timed": TIMED,
    }
