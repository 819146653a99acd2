"""The statistics of one round over a shard of the images, in constant memory.

Images are processed in units of UNIT, each by one thread, and a shard consists of complete units. Therefore an image
is always in the same batch, and its router logits are bit-identical for any number of shards and cores.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.images import Entry, ImageFolder, open_images
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.calibration.routing.histograms import Histogram
from morvit_deploy.calibration.routing.scout import Scout, Scouted, Stopped
from morvit_deploy.calibration.routing.sequence import kinds_of, rounds_of, scaled
from morvit_deploy.calibration.routing.states import States, Stops, nearest
from morvit_deploy.calibration.routing.statistics import (
    DIGESTS,
    WHOLE,
    Run,
    Shard,
    Statistics,
    Thresholds,
    add_tallies,
)
from morvit_deploy.errors import CheckpointError, ImageError
from morvit_deploy.model.answers.heads import by_sign
from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.model.config import Config, load_config
from morvit_deploy.model.threads import fitting_threads

UNIT = 16  # images
MOST_WORKERS = 16  # each needs memory for a unit's activations, 0.25 GB for a ViT-B/16
NO_LABEL = -1

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Source:
    """A checkpoint, calibration images, and how to read them."""

    checkpoint: Path
    images: Path
    limit: int | None = None
    seed: int = 0
    upscale: bool = False
    max_bad: int = 0  # images that may be unreadable
    exif: bool = False  # turn images by their EXIF orientation

    def folder(self) -> ImageFolder:
        """Return the chosen images."""
        config = load_config(self.checkpoint)
        how = {"upscale": self.upscale, "exif": self.exif}
        return open_images(self.images, config, limit=self.limit, seed=self.seed, **how)

    def run(self, mode: str, scales: tuple[float, ...]) -> Run:
        """Return the identity of this calibration."""
        folder = self.folder()
        return Run(fingerprint(self.checkpoint), listing_digest(folder), len(folder), mode, scales)


@dataclass(frozen=True)
class Task:
    """One round over one shard, with the thresholds known so far for each scale."""

    source: Source
    run: Run
    round: int
    thresholds: tuple[Thresholds, ...]
    shard: Shard = WHOLE


@dataclass
class Unit:
    """A batch of images and its statistics."""

    number: int  # of the unit in its shard, from 0
    names: int  # number of images, readable or not
    pixels: Pixels  # (images, height, width, 3)
    labels: NDArray[np.int64]  # (images,)
    digest: int
    bad: list[tuple[str, str]]
    logits: dict[Thresholds, NDArray[np.float32]] = field(default_factory=dict)
    counts: NDArray[Any] | None = None
    tallies: dict[str, Any] = field(default_factory=dict)


def gather(
    task: Task, progress: Callable[[float], None] = lambda share: None, states: States | None = None
) -> Statistics:
    """Run a task; ImageError if more than `max_bad` images cannot be read.

    The rounds of one shard that share `states` go on where the previous one stopped.
    """
    states = States(0) if states is None else states
    scout, folder = _scout(task.source.checkpoint, task.run.checkpoint), task.source.folder()
    if listing_digest(folder) != task.run.images:
        raise ImageError(
            f"{folder.folder} contains other images than at the start of the run; all processes must read the same "
            "images, which must not change during calibration"
        )
    units = _units(folder, task.shard)
    total, done = sum(map(len, units)) or 1, 0
    statistics = Statistics(task.run, task.round, (task.shard,), task.thresholds)
    histograms = {thresholds: Histogram() for thresholds in task.thresholds}  # equal thresholds share one
    counts: NDArray[Any] | None = None
    with _one_thread_each(scout.config) as workers:
        read = (_read(folder, number, entries) for number, entries in enumerate(units))
        for unit in in_order(lambda unit: _look(scout, task, unit, states), read, workers):
            statistics.digest = (statistics.digest + unit.digest) % DIGESTS
            statistics.bad += unit.bad
            statistics.check_bad(task.source.max_bad)
            for thresholds, logits in unit.logits.items():
                histograms[thresholds].add(logits)
            if unit.counts is not None:
                if counts is None:  # allocated once: many small arrays would fragment memory
                    counts = np.empty((total, *unit.counts.shape[1:]), unit.counts.dtype)
                counts[statistics.images :][: len(unit.counts)] = unit.counts
            statistics.images += len(unit.labels)
            statistics.tallies = add_tallies(statistics.tallies, unit.tallies)
            done += unit.names
            progress(done / total)
    statistics.bad.sort()
    statistics.counts = None if counts is None else counts[: statistics.images]
    if not _is_last(scout.config, task):
        statistics.histograms = [histograms[thresholds] for thresholds in task.thresholds]
    return statistics


def listing_digest(folder: ImageFolder) -> str:
    """Return a sha256 of names, labels and reading options."""
    listed = "\n".join(f"{_name(folder, entry)}\t{entry.label}" for entry in folder.entries)
    how = f"upscale {folder.upscale}" + ("\nexif True" if folder.exif else "")
    return hashlib.sha256(f"{listed}\n{how}".encode()).hexdigest()


def in_order(work: Callable[[Given], Made], given: Iterable[Given], workers: int) -> Iterator[Made]:
    """Apply `work` in several threads and yield the results in order, in constant memory.

    `given` is iterated in the caller's thread. Each worker sets PyTorch to one thread, because products split among
    cores may differ in the last bits, and not every library inherits the setting of the main thread.
    """
    ahead: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for each in given:
            ahead.append(pool.submit(work, each))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


@contextmanager
def _one_thread_each(config: Config) -> Iterator[int]:
    """Yield the number of units to process in parallel, each by one thread."""
    with fitting_threads(config):  # restores the number of threads
        workers = torch.get_num_threads()
        torch.set_num_threads(1)
        yield min(workers, MOST_WORKERS)


def _is_last(config: Config, task: Task) -> bool:
    return task.round + 1 == rounds_of(config, task.run.mode)


def _read(folder: ImageFolder, number: int, entries: tuple[Entry, ...]) -> Unit:
    """Read a unit; images that cannot be read are recorded as bad."""
    shape = (*folder.config.image_shape, folder.config.in_channels)
    pixels, labels, digest, bad = [], [], 0, []
    for entry in entries:
        name = _name(folder, entry)
        try:
            image = folder.read(entry)
        except ImageError as error:
            bad.append((name, str(error).replace(str(entry.path), name)))
            continue
        pixels.append(image)
        labels.append(NO_LABEL if entry.label is None else entry.label)
        own = hashlib.blake2b(name.encode() + image.tobytes(), digest_size=8)
        digest += int.from_bytes(own.digest(), "big")
    stacked = np.stack(pixels) if pixels else np.empty((0, *shape), dtype=np.uint8)
    return Unit(number, len(entries), stacked, np.array(labels, dtype=np.int64), digest, bad)


@torch.no_grad()
def _look(scout: Scout, task: Task, unit: Unit, states: States) -> Unit:
    """Compute the statistics of the task's round."""
    if not len(unit.labels):
        return unit
    if task.run.mode == "depth":
        trained = scout.by_depth(unit.pixels)
        unit.counts, unit.tallies = _results(scout, task, unit.labels, trained, {"depth": [trained]})
        return unit
    stops = states.take(unit.number) or {(): scout.start(unit.pixels)}
    if _is_last(scout.config, task):
        trained = _as_trained(scout, stops[()])
        found = _compared(scout, task, stops, trained)
        unit.counts, unit.tallies = _results(scout, task, unit.labels, trained, found)
    else:
        after = {one: scout.onward(nearest(stops, one), one) for one in {*task.thresholds}}
        unit.logits = {thresholds: scout.router_logits(stopped) for thresholds, stopped in after.items()}
        states.keep(unit.number, {(): stops[()], **after})
    return unit


def _compared(scout: Scout, task: Task, stops: Stops, trained: Scouted) -> dict[str, list[Scouted]]:
    """Return the results of each kind of routing at each scale."""
    config, found = scout.config, {}
    kinds = kinds_of(config, task.run.mode)
    if "topk" in kinds:
        schedules = [scaled(config, scale) for scale in task.run.scales]
        others = {one: scout.by_top_k(stops[()], one) for one in {*schedules} if one != config.schedule}
        found["topk"] = [others.get(schedule, trained) for schedule in schedules]
    if "threshold" in kinds:
        found["threshold"] = [
            trained if one == config.thresholds else scout.by_thresholds(nearest(stops, one), one)
            for one in task.thresholds
        ]
    return found


def _results(
    scout: Scout, task: Task, labels: NDArray[np.int64], trained: Scouted, found: dict[str, list[Scouted]]
) -> tuple[NDArray[Any] | None, dict[str, Any]]:
    """Return counts (images, scales, steps), None in mode `topk`, and tallies as in `Statistics`."""
    config, run = scout.config, task.run
    if by_sign(config.num_classes, config.head_activation):
        labels = np.full_like(labels, NO_LABEL)  # an image may have several classes, or none
    tallies: dict[str, Any] = {"labelled": (labels != NO_LABEL).sum()}
    tallies["right"] = (trained.predictions == labels).sum()
    for kind, scouted in found.items():
        predictions = np.stack([one.predictions for one in scouted])  # (scales, images)
        decided = np.stack([one.decisions for one in scouted])  # (scales, images, …)
        tallies[f"{kind}.alike"] = (decided == trained.decisions).all(axis=-1).sum(axis=1)
        tallies[f"{kind}.right"] = (predictions == labels).sum(axis=1)
    if run.mode == "threshold":
        decisions = [_decisions_alike(trained, one, config.num_steps) for one in found["threshold"]]
        tallies["threshold.decisions"] = np.stack(decisions)
    if run.mode == "topk":
        return None, tallies
    return np.stack([one.counts for one in found[run.mode]], axis=1), tallies


def _as_trained(scout: Scout, start: Stopped) -> Scouted:
    """Run a batch as the checkpoint was trained: by its thresholds, or by its schedule."""
    config = scout.config
    if config.thresholds is not None:
        return scout.by_thresholds(start, config.thresholds)
    assert config.schedule is not None
    return scout.by_top_k(start, config.schedule)


def _decisions_alike(trained: Scouted, planned: Scouted, steps: int) -> NDArray[np.int64]:
    """Return how many patch tokens are routed alike at each step, (steps,); a token of depth d runs steps 1 … d."""
    numbers = np.arange(1, steps + 1)
    alike = (trained.depth[..., None] >= numbers) == (planned.depth[..., None] >= numbers)
    counts: NDArray[np.int64] = alike.sum(axis=(0, 1))
    return counts


def _units(folder: ImageFolder, shard: Shard) -> list[tuple[Entry, ...]]:
    starts = range((shard.number - 1) * UNIT, len(folder), shard.of * UNIT)
    return [folder.entries[start : start + UNIT] for start in starts]


def _name(folder: ImageFolder, entry: Entry) -> str:
    """A name in Unicode, as JSON and hashes need it: bytes that are not UTF-8 are shown as in \\xff."""
    name = entry.path.relative_to(folder.folder).as_posix()
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


@lru_cache(maxsize=1)
def _scout(checkpoint: Path, sha256: str) -> Scout:
    """Load a checkpoint once for all rounds; the hash is part of the key, so a changed file is loaded again."""
    if fingerprint(checkpoint) != sha256:
        raise CheckpointError(
            f"{checkpoint}: sha256 differs from that of this run; all processes must use the same checkpoint"
        )
    return Scout(load_checkpoint(checkpoint))
