"""What a pass over some of the images leaves behind: histograms or counts, joined to the same bits in any order.

Calibration is sequential: round r counts the router logits at the r-th routed step under the thresholds of the
steps before it, and the last round counts who ran and what was answered. A shard is a part of the images; its
statistics of one round are one file. No torch.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.routing.histograms import BINS, Histogram
from morvit_deploy.errors import ConfigError, ImageError, PlanError
from morvit_deploy.files import write_bytes

FORMAT = "morvit-statistics/1"
DIGESTS = 2**64  # a sum of digests is kept modulo this
LISTED = 10  # unreadable images that a message names

Thresholds = tuple[float | None, ...]  # a router logit for each step; None: the step is not routed


@dataclass(frozen=True)
class Run:
    """Which calibration some statistics belong to: two with the same fields see the same images the same way."""

    checkpoint: str  # sha256
    images: str  # sha256 over the chosen files' names and labels
    count: int
    mode: str
    scales: tuple[float, ...]

    def differences(self, other: Run) -> str:
        """What differs, for a message."""
        names = {
            "checkpoint": "checkpoint (sha256)",
            "images": "choice of images (sha256; the folder, --limit, --seed or --upscale)",
            "count": "number of images",
        }
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return ", ".join(
            f"{names.get(name, name)} {_short(a)} and {_short(b)}" for name, a, b in pairs if a != b
        )


def _short(value: Any) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 12 else str(value)


@dataclass(frozen=True)
class Shard:
    """Part `number` of `of` (from 1): every `of`-th unit of images."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise PlanError(f"shard: got {self}, expected i/n with 1 ≤ i ≤ n, as in 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`2/8`."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise PlanError(f"shard: got {text!r}, expected i/n, as in 2/8")
        return cls(int(number), int(of))


WHOLE = Shard(1, 1)


@dataclass
class Statistics:
    """One shard's, or several joined shards', statistics of one round; `images` of them could be read.

    A round of logits has `histograms`, one for each scale. The last round has `counts` (images, scales, steps), the
    patch tokens that ran each step, in no order, and `tallies`, of which a sum over the images is enough:
    `labelled` and `right` count images (the trained model's answers), `KIND.alike` and `KIND.right` (scales,) the
    answers that are the trained model's and the label's, `threshold.decisions` (scales, steps) the patch tokens that
    run a step, or do not, as in the trained model.
    """

    run: Run
    round: int  # from 0
    shards: tuple[Shard, ...]
    thresholds: tuple[Thresholds, ...] = ()  # those it was counted under, for each scale
    images: int = 0
    digest: int = 0  # sum over the images read of a digest of name and pixels, modulo DIGESTS
    histograms: list[Histogram] = field(default_factory=list)
    counts: NDArray[Any] | None = None
    tallies: dict[str, Any] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)  # unreadable: name and reason

    @property
    def complete(self) -> bool:
        """Are all shards in it?"""
        return len(self.shards) == self.shards[0].of

    def check_bad(self, allowed: int) -> None:
        """ImageError naming them when more images than `allowed` could not be read."""
        if len(self.bad) > allowed:
            listed = "\n".join(f"  - {reason}" for _, reason in self.bad[:LISTED])
            more = f"\n  … and {len(self.bad) - LISTED} more" if len(self.bad) > LISTED else ""
            raise ImageError(
                f"unreadable images: {len(self.bad)} so far, --max-bad allows {allowed}; mend or remove them, or "
                f"raise --max-bad:\n{listed}{more}"
            )

    def agreement(self, kind: str, scale: int = 0) -> float:
        """Share of the images that this kind of routing answers as the trained model does."""
        return int(self.tallies[f"{kind}.alike"][scale]) / self.images

    def top1(self, kind: str, scale: int = 0) -> float | None:
        """Share of right answers; None unless every image has a label."""
        return self._of_labels(self.tallies[f"{kind}.right"][scale])

    @property
    def trained_top1(self) -> float | None:
        """The trained model's share of right answers; None unless every image has a label."""
        return self._of_labels(self.tallies["right"])

    def _of_labels(self, right: Any) -> float | None:
        return int(right) / self.images if int(self.tallies["labelled"]) == self.images else None

    def save(self, path: Path) -> None:
        """Write to one .npz file, whole or not at all."""
        head = {
            "format": FORMAT,
            "run": asdict(self.run),
            "round": self.round,
            "shards": [(shard.number, shard.of) for shard in self.shards],
            "thresholds": self.thresholds,
            "images": self.images,
            "digest": self.digest,
            "bad": self.bad,
        }
        arrays: dict[str, Any] = {f"tally.{name}": array for name, array in self.tallies.items()}
        arrays["head"] = np.frombuffer(json.dumps(head).encode(), dtype=np.uint8)
        if self.histograms:
            arrays["histograms"] = np.stack([histogram.counts for histogram in self.histograms])
        if self.counts is not None:
            arrays["counts"] = self.counts
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what `save` wrote; PlanError for anything else. Nothing is unpickled."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return cls._of_arrays(arrays)
        except _UNREADABLE as error:
            raise PlanError(
                f"{path} is not whole {FORMAT} of `calibrate --shard` ({_first_line(error)}); remove it and run its "
                "shard again"
            ) from None

    @classmethod
    def _of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Statistics:
        head: dict[str, Any] = json.loads(arrays.pop("head").tobytes())
        if head["format"] != FORMAT:
            raise ValueError(f"got format {head['format']!r}")
        run = Run(**head["run"] | {"scales": tuple(head["run"]["scales"])})
        histograms = arrays.pop("histograms", np.zeros((0, BINS), dtype=np.int64))
        if len(histograms) not in (0, len(run.scales)):
            raise ValueError(f"got {len(histograms)} histograms for {len(run.scales)} scales")
        return cls(
            run,
            round=int(head["round"]),
            shards=tuple(Shard(*shard) for shard in head["shards"]),
            thresholds=tuple(map(tuple, head["thresholds"])),
            images=int(head["images"]),
            digest=int(head["digest"]),
            histograms=[Histogram(row) for row in histograms],
            counts=arrays.pop("counts", None),
            tallies={name.removeprefix("tally."): array for name, array in arrays.items()},
            bad=[(name, reason) for name, reason in head["bad"]],
        )


# what a damaged or foreign file makes numpy, zipfile and the head's own checks raise
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, ConfigError, PlanError),
)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def join(parts: Iterable[Statistics]) -> Statistics:
    """Shards of one round as one; PlanError for shards of different runs, rounds or divisions, or one twice."""
    return reduce(_both, parts)


def _both(a: Statistics, b: Statistics) -> Statistics:
    if a.run != b.run:
        raise PlanError(
            f"shards of different runs: {a.run.differences(b.run)}; give each run a folder of its own"
        )
    if a.round != b.round:
        raise PlanError(f"got statistics of rounds {a.round + 1} and {b.round + 1}, expected one round")
    shards = tuple(sorted(a.shards + b.shards, key=lambda shard: shard.number))
    if len({shard.of for shard in shards}) > 1 or len(set(shards)) != len(shards):
        raise PlanError(f"got shards {told_of(shards)}, expected each of one division once")
    if a.thresholds != b.thresholds:
        raise PlanError(
            f"round {a.round + 1}: shards {told_of(a.shards)} and {told_of(b.shards)} were counted under different "
            "thresholds, since a round before was counted anew; remove the files of this round and those after it, "
            "and run the shards again"
        )
    return Statistics(
        a.run,
        a.round,
        shards,
        a.thresholds,
        a.images + b.images,
        (a.digest + b.digest) % DIGESTS,
        [one.merge(other) for one, other in zip(a.histograms, b.histograms, strict=True)],
        _concatenated(a.counts, b.counts),
        add_tallies(a.tallies, b.tallies),
        sorted(a.bad + b.bad),
    )


def told_of(shards: Iterable[Shard]) -> str:
    """`1/3, 2/3`."""
    return ", ".join(map(str, shards))


def add_tallies(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Sums by name; a shard in which no image was read has none."""
    return {name: a.get(name, 0) + b.get(name, 0) for name in a | b}


def _concatenated(a: NDArray[Any] | None, b: NDArray[Any] | None) -> NDArray[Any] | None:
    return np.concatenate([a, b]) if a is not None and b is not None else b if a is None else a
