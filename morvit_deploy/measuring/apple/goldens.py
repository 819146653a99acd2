"""Pictures with expected logits by bucket, which a device must return before it is timed.

Files are .npz, never unpickled. No torch, no coremltools.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.functions.devices import TOLERANCE
from morvit_deploy.model.answers.heads import same_decisions


@dataclass(frozen=True)
class Golden:
    """Pictures of one bucket: uint8 (n, height, width, 3), and float32 (n, classes) when run in that bucket."""

    pixels: NDArray[np.uint8]
    logits: NDArray[np.float32]
    chosen: bool  # do these pictures choose the bucket themselves?


@dataclass(frozen=True)
class Goldens:
    """By bucket, in the plan's order, with its share of the mix."""

    buckets: Mapping[str, Golden]
    shares: Mapping[str, float]
    shares_from: str

    def stream(self, runs: int) -> list[tuple[str, int]]:
        """Bucket and picture of each of `runs` runs of the mix, of buckets whose pictures choose them."""
        met = {name: self.shares.get(name, 0.0) for name, golden in self.buckets.items() if golden.chosen}
        wanted = quota(met if any(met.values()) else dict.fromkeys(met, 1.0), runs)
        turns = [(name, i % len(self.buckets[name].pixels)) for name, n in wanted.items() for i in range(n)]
        return [turns[i] for i in np.random.default_rng(0).permutation(len(turns))]


def quota(shares: Mapping[str, float], runs: int) -> dict[str, int]:
    """Divide `runs` by share, by largest remainders."""
    whole = math.fsum(shares.values())
    exact = {name: runs * share / whole for name, share in shares.items()}
    given = {name: math.floor(part) for name, part in exact.items()}
    rest = runs - sum(given.values())
    for name in sorted(exact, key=lambda name: given[name] - exact[name])[:rest]:
        given[name] += 1
    return given


@dataclass(frozen=True)
class Agreement:
    """Comparison of a device's logits with those expected of one bucket."""

    error: tuple[
        float, ...
    ]  # of each picture: largest |Δlogit| over max(1, max |logit|); inf where not finite
    top1: float  # share of the pictures with the same class
    tolerance: float

    @property
    def agrees(self) -> bool:
        """Every logit is finite, and the median picture is within the tolerance."""
        return bool(np.isfinite(self.error).all() and np.median(self.error) <= self.tolerance)

    def as_dict(self) -> dict[str, object]:
        error = [float(e) if np.isfinite(e) else None for e in self.error]
        return {"agrees": self.agrees, "error": error, "top1": self.top1, "tolerance": self.tolerance}


@dataclass
class UnitsParity:
    """The agreement of each bucket that was compared under one choice of compute units."""

    device: str
    units: str
    buckets: dict[str, Agreement] = field(default_factory=dict)

    @property
    def agrees(self) -> bool:
        """Do all buckets agree?"""
        return all(found.agrees for found in self.buckets.values())

    @property
    def problem(self) -> str:
        """The error message for the first bucket that does not agree."""
        bucket, found = next((name, found) for name, found in self.buckets.items() if not found.agrees)
        return (
            f"{self.device} with compute units {self.units!r} returns wrong logits for bucket {bucket!r}: "
            f"the median error of {len(found.error)} pictures is {np.median(found.error):.3g} of the largest "
            f"logit, expected at most {found.tolerance:g}, and {found.top1:.0%} have the expected class; "
            "nothing was timed with these units. Choose others with --compute-units, or export with another "
            "--layout"
        )

    def as_dict(self) -> dict[str, object]:
        return {bucket: found.as_dict() for bucket, found in self.buckets.items()}


def agreement(got: Sequence[NDArray[Any]], golden: Golden, precision: str) -> Agreement:
    """Compare logits (classes,) of each picture with those expected."""
    errors = []
    for one, expected in zip(got, golden.logits.astype(np.float64), strict=True):
        gap = np.abs(np.asarray(one, dtype=np.float64) - expected).max()
        errors.append(float(gap / max(1.0, np.abs(expected).max())) if np.isfinite(gap) else math.inf)
    same = same_decisions(np.stack([np.asarray(one).ravel() for one in got]), golden.logits).mean()
    return Agreement(tuple(errors), float(same), TOLERANCE.get(precision, TOLERANCE["fp16"]))


def write_goldens(goldens: Goldens, folder: Path) -> None:
    """One .npz for each bucket."""
    folder.mkdir(parents=True)
    for name, golden in goldens.buckets.items():
        file, chosen = folder / f"{name}.npz", np.asarray(golden.chosen)
        np.savez_compressed(file, pixels=golden.pixels, logits=golden.logits, chosen=chosen)


# raised by numpy, zipfile and zlib for a damaged archive
_BROKEN = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)


def read_golden(file: Path) -> Golden:
    """What `write_goldens` wrote; BundleError for anything else."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as held:
            return Golden(held["pixels"], held["logits"], bool(held["chosen"]))
    except _BROKEN as error:
        raise BundleError(f"cannot read {file}: {error}; write the project again") from None
