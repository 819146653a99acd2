"""One pass over a shard of the images: what a round counts, in constant memory.

Images go through in units of UNIT, and a shard is whole units. So an image is always computed in the same company,
and its router logits have the same bits whatever the number of shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.calibration.histograms import Histogram
from morvit_deploy.calibration.images import Entry, ImageFolder, open_images
from morvit_deploy.calibration.scout import Scout, Walked
from morvit_deploy.calibration.sequence import routed, scaled
from morvit_deploy.calibration.statistics import WHOLE, Run, Shard, Statistics
from morvit_deploy.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.config import load_config
from morvit_deploy.errors import ImageError
from morvit_deploy.pixels import Pixels
from morvit_deploy.threads import fitting_threads

UNIT = 32  # images
NO_LABEL = -1


@dataclass(frozen=True)
class Source:
    """A checkpoint, the images to calibrate it on, and how to read them."""

    checkpoint: Path
    images: Path
    limit: int | None = None
    seed: int = 0
    upscale: bool = False
    max_bad: int = 0  # images that may be unreadable

    def folder(self) -> ImageFolder:
        """The chosen images."""
        config = load_config(self.checkpoint)
        return open_images(self.images, config, limit=self.limit, seed=self.seed, upscale=self.upscale)

    def run(self, mode: str, scales: tuple[float, ...]) -> Run:
        """What tells this calibration from another."""
        folder = self.folder()
        listed = "\n".join(f"{_name(folder, entry)}\t{entry.label}" for entry in folder.entries)
        digest = hashlib.sha256(f"{listed}\nupscale {self.upscale}".encode()).hexdigest()
        return Run(fingerprint(self.checkpoint), digest, len(folder), mode, scales, self.max_bad)


@dataclass(frozen=True)
class Task:
    """One round over one shard. Thresholds are those known so far, for each of the run's scales."""

    source: Source
    run: Run
    round: int
    thresholds: tuple[tuple[float | None, ...], ...]
    shard: Shard = WHOLE


def gather(task: Task, progress: Callable[[float], None] = lambda share: None) -> Statistics:
    """Carry out a task. Raises ImageError when more than `max_bad` images cannot be read."""
    scout = _scout(task.source.checkpoint, task.run.checkpoint)
    folder = task.source.folder()
    config, done = scout.config, 0
    statistics = Statistics(task.run, task.round, (task.shard,))
    last = config.routing != "expert_choice" or task.run.mode == "topk" or task.round == len(routed(config))
    if last:
        counter: _Records | _Histograms = _Records(scout, task)
    else:
        counter = _Histograms(scout, task)
    total = sum(len(unit) for unit in _units(folder, task.shard)) or 1
    with fitting_threads(config), torch.no_grad():
        for unit in _units(folder, task.shard):
            entries, pixels = _read(folder, unit, statistics.bad)
            check_bad(statistics.bad, task.run.max_bad)
            if entries:
                counter.add(entries, pixels)
            done += len(unit)
            progress(done / total)
    counter.into(statistics)
    return statistics


class _Histograms:
    """Router logits at the next routed step, for each scale."""

    def __init__(self, scout: Scout, task: Task) -> None:
        self.scout, self.thresholds = scout, task.thresholds
        self.histograms = {
            thresholds: Histogram.empty() for thresholds in task.thresholds
        }  # at first all the same

    def add(self, entries: list[Entry], pixels: Pixels) -> None:
        h = self.scout.start(pixels)
        for thresholds, histogram in self.histograms.items():
            histogram.add(self.scout.router_logits(h, thresholds))

    def into(self, statistics: Statistics) -> None:
        statistics.histograms = [self.histograms[thresholds] for thresholds in self.thresholds]


class _Records:
    """A few bytes for each image: its counts under each scale, and what each way of routing answers."""

    def __init__(self, scout: Scout, task: Task) -> None:
        self.scout, self.thresholds, self.scales = scout, task.thresholds, task.run.scales
        self.by_threshold = task.run.mode == "threshold"
        self.parts: dict[str, list[NDArray]] = {}
        self.alike = np.zeros((len(self.scales), scout.config.num_steps), dtype=np.int64)

    def add(self, entries: list[Entry], pixels: Pixels) -> None:
        labels = [NO_LABEL if entry.label is None else entry.label for entry in entries]
        row: dict[str, NDArray] = {"label": np.array(labels, dtype=np.int32)}
        if self.scout.config.routing == "expert_choice":
            row |= self._routed(pixels)
        else:
            walked = self.scout.by_depth(pixels)
            row |= {"trained": walked.predictions.astype(np.int32), "counts": walked.counts[:, None]}
        for name, array in row.items():
            self.parts.setdefault(name, []).append(array)

    def _routed(self, pixels: Pixels) -> dict[str, NDArray]:
        config = self.scout.config
        h = self.scout.start(pixels)
        assert config.capacity is not None
        trained = self.scout.by_top_k(h, config.capacity)
        topk = [self.scout.by_top_k(h, scaled(config, scale)) for scale in self.scales]
        found = {"trained": trained.predictions.astype(np.int32), "topk": _stacked(topk)}
        if self.by_threshold:
            planned = [self.scout.by_thresholds(h, thresholds) for thresholds in self.thresholds]
            found["planned"] = _stacked(planned)
            found["counts"] = np.stack([walked.counts for walked in planned], axis=1)
            self.alike += [_alike(trained, walked, config.num_steps) for walked in planned]
        return found

    def into(self, statistics: Statistics) -> None:
        statistics.records = {name: np.concatenate(parts) for name, parts in self.parts.items()}
        statistics.alike = self.alike


def _stacked(walked: list[Walked]) -> NDArray[np.int32]:
    """Predictions (batch, scales)."""
    return np.stack([one.predictions for one in walked], axis=1).astype(np.int32)


def _alike(trained: Walked, planned: Walked, steps: int) -> NDArray[np.int64]:
    """(steps,) patch tokens that both run, or both do not run; a token of depth d runs steps 1 … d."""
    numbers = np.arange(1, steps + 1)
    return ((trained.depth[..., None] >= numbers) == (planned.depth[..., None] >= numbers)).sum(axis=(0, 1))


def _units(folder: ImageFolder, shard: Shard) -> Iterator[tuple[Entry, ...]]:
    starts = range((shard.number - 1) * UNIT, len(folder), shard.of * UNIT)
    yield from (folder.entries[start : start + UNIT] for start in starts)


def _read(
    folder: ImageFolder, unit: tuple[Entry, ...], bad: list[tuple[str, str]]
) -> tuple[list[Entry], Pixels]:
    """The readable images of a unit; the others are noted in `bad`."""
    entries, pixels = [], []
    for entry in unit:
        try:
            pixels.append(folder.read(entry))
            entries.append(entry)
        except ImageError as error:
            bad.append((_name(folder, entry), str(error)))
    size = folder.config.image_size
    return entries, np.stack(pixels) if pixels else np.zeros((0, size, size, 3), dtype=np.uint8)


def check_bad(bad: list[tuple[str, str]], allowed: int) -> None:
    """ImageError with the first of them when more images than `allowed` could not be read."""
    if len(bad) > allowed:
        listed = "\n".join(f"  - {reason}" for _, reason in bad[:10])
        raise ImageError(
            f"{len(bad)} images cannot be read, at most {allowed} allowed; mend or remove them, or raise --max-bad:\n"
            f"{listed}"
        )


def _name(folder: ImageFolder, entry: Entry) -> str:
    return entry.path.relative_to(folder.folder).as_posix()


@lru_cache(maxsize=1)
def _scout(checkpoint: Path, sha256: str) -> Scout:
    """Loaded once for all rounds; the hash is part of the key, so that a changed file is read again."""
    return Scout(load_checkpoint(checkpoint))
