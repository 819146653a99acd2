"""Images per second in larger batches: each row alone, one batch size after the other, until that gains nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import closing

import psutil

from morvit_deploy.errors import ConfigError, MorvitError
from morvit_deploy.measuring.compare.candidates import Candidate
from morvit_deploy.measuring.compare.results.rows import Row, Throughput
from morvit_deploy.measuring.cpu.process import LocalProcess
from morvit_deploy.timing.loop import Stages
from morvit_deploy.timing.samples import Block

BATCHES = (1, 2, 4, 8, 16, 32)
MOST = 1024  # pictures at once
BLOCK_MS, LEAST, LIMIT = 1000.0, 2, 10  # a block of runs: target duration, fewest and most runs
WORSE = 2  # batch sizes in a row that are slower than the best: no larger one is tried
SPARE = 1.5  # memory that must be available, relative to what the last batch added
_MIB = 2**20


def check_batches(batches: Iterable[int]) -> tuple[int, ...]:
    """In order, each once; ConfigError for one that cannot be."""
    found = tuple(sorted({*batches}))
    if not found or found[0] < 1 or found[-1] > MOST:
        raise ConfigError(
            f"batches: got {', '.join(map(str, found)) or 'none'}, expected numbers of pictures from 1 to {MOST}"
        )
    return found


def throughput(
    candidate: Candidate, row: Row, batches: Sequence[int], threads: int, stages: Stages
) -> Throughput:
    """Of one row, whose blocks are batch 1; what goes wrong with a batch size ends the search with the reason."""
    larger = [batch for batch in batches if batch > 1]
    with stages.part(f"larger batches: {candidate.name}"):
        if candidate.open_batches is None or not larger:
            return Throughput({}, candidate.one_at_a_time if larger else "")
        blocks: dict[int, Block] = {}
        try:
            with closing(candidate.open_batches(threads)) as worker:
                ended = _search(worker, candidate, row, larger, blocks)
        except MorvitError as error:
            ended = str(error).splitlines()[0]
    return Throughput(blocks, ended)


def _search(
    worker: LocalProcess, candidate: Candidate, row: Row, batches: Sequence[int], blocks: dict[int, Block]
) -> str:
    """Fill `blocks`; returns why not every batch size was tried, or an empty text."""
    best, worse, before = row.images_per_s, 0, _peak(worker)
    last, added = 1, 0.0  # batch size, and MiB that it added
    for batch in batches:
        if added * batch / last * SPARE * _MIB > psutil.virtual_memory().available:
            return f"batch {batch} would need more memory than is free"
        blocks[batch] = _block(worker, candidate, batch)
        reached = Throughput(blocks).images_per_s(batch)
        best, worse = max(best, reached), 0 if reached >= best else worse + 1
        if worse == WORSE and batch != batches[-1]:
            return f"slower from {last} on"
        last, added = batch, _peak(worker) - before
    return ""


def _block(worker: LocalProcess, candidate: Candidate, batch: int) -> Block:
    """About a second of runs after one of warm-up; whole passes over the pictures of an adaptive bundle."""
    one_pass = 1 if candidate.stream is None else math.ceil(len(candidate.stream) / batch)
    (warm,) = worker.run_batch(batch, 0, 1).warmup_ms
    runs = min(LIMIT, max(LEAST, math.ceil(BLOCK_MS / warm)))
    return worker.run_batch(batch, math.ceil(runs / one_pass) * one_pass, 0)


def _peak(worker: LocalProcess) -> float:
    """MiB, where the system reports it."""
    return worker.memory_mib().get("peak", 0.0)
