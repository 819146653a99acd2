"""The time that each picture takes in several bundles. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.bundle.pixels import Pixels, digest
from morvit_deploy.files import temporary
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.measuring.core.inputs import Subject, in_rounds
from morvit_deploy.measuring.cpu.lanes import BundleLane, BundleProcesses
from morvit_deploy.report import numbered
from morvit_deploy.timing.loop import WARMUP, Amount, Stages, measure
from morvit_deploy.timing.result import Ratio, ratio_of, warnings_about
from morvit_deploy.timing.samples import Block

BLOCKS = 6  # a block is every picture once


@dataclass
class Timed:
    """Milliseconds by bundle: medians over the blocks."""

    ms: dict[str, NDArray[np.float64]]  # (images,) of each picture
    mean_ms: dict[str, float]  # of an image, over all pictures
    ratios: dict[str, Ratio]  # the first bundle over each of the others, block by block
    conditions: dict[str, Any]
    blocks: int
    threads: int
    warnings: tuple[str, ...]

    @property
    def measured(self) -> str:
        """How it was measured."""
        threads = numbered(self.threads, "thread")
        return f"{self.blocks} blocks of every image once, one image a run, {threads}"

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return {
            "ms": {name: ms.tolist() for name, ms in self.ms.items()},
            "mean_ms": self.mean_ms,
            "ratios": {name: ratio.as_dict() for name, ratio in self.ratios.items()},
            "conditions": self.conditions | {"blocks": self.blocks, "threads": self.threads},
            "warnings": list(self.warnings),
        }


class EveryPicture(BundleProcesses):
    """Runs every picture once a block, in the same order in all bundles."""

    def run(self, lane: BundleLane, runs: int, warmup: int) -> Block:
        return lane.worker.run(runs, warmup, lane.subject.rounds)


def measure_pictures(bundles: Mapping[str, Path], pixels: Pixels, *, quick: bool = False) -> Timed:
    """Time all pictures uint8 (images, height, width, 3) one by one, in blocks that the bundles take in turn."""
    amount = Amount(runs=len(pixels), blocks=2 if quick else BLOCKS, warmup=WARMUP, starts=1, least=1)
    threads = checked_threads(None)
    with temporary("demo") as scratch, ExitStack() as stack:
        lanes = [BundleLane.of(_subject(folder, pixels, scratch), name) for name, folder in bundles.items()]
        conditions = measure(EveryPicture(threads, stack, mixes=False), lanes, amount, Stages())
        measured = [lane.measured() for lane in lanes]
    first, *others = measured
    return Timed(
        {one.name: np.median([block.ms for block in one.blocks], axis=0) for one in measured},
        {one.name: median(block.mean_ms for block in one.blocks) for one in measured},
        {one.name: ratio_of(first, one, means=True) for one in others},
        conditions,
        amount.blocks,
        threads,
        warnings_about(conditions, measured),
    )


def _subject(bundle: Path, pixels: Pixels, scratch: Path) -> Subject:
    file = scratch / f"{bundle.name}.npy"  # each has expected logits of its own beside it
    np.save(file, in_rounds(pixels, 1), allow_pickle=False)
    return Subject(bundle, open_manifest(bundle), file, 1, len(pixels), digest(pixels))
