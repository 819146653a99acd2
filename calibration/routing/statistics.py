"""The statistics of a round over some of the images, which can be joined in any order with identical results.

Calibration is sequential: round r counts the router logits at the r-th routed step with the thresholds of the
previous steps applied, and the last round records token counts and predictions. A shard is a part of the images; its
statistics of one round are one file. No torch.
"""

from __future__ import annotations

import io
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from functools import reduce
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from morvit_deploy.calibration.routing.histograms import BINS, Histogram
from morvit_deploy.errors import ConfigError, ImageError, PlanError, listed
from morvit_deploy.files import any_file, write_bytes
from morvit_deploy.strict_fields import Count, Finite, Positive, Strict, explain
from morvit_deploy.strict_json import parse_json

FORMAT = "morvit-statistics/1"
DIGESTS = 2**64  # a sum of digests is kept modulo this
LISTED = 10  # unreadable images that a message lists

Thresholds = tuple[float | None, ...]  # a router logit for each step; None: the step is not routed


@dataclass(frozen=True)
class Run:
    """The identity of a calibration: runs with equal fields process the same images in the same way."""

    checkpoint: str  # sha256
    images: str  # sha256 over the chosen files' names and labels
    count: int
    mode: str
    scales: tuple[float, ...]

    def differences(self, other: Run) -> str:
        """Return the differing fields, for a message."""
        names = {
            "checkpoint": "checkpoint (sha256)",
            "images": "choice of images (sha256; the folder, --limit, --seed, --upscale or --exif)",
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
    """Part `number` (from 1) of `of`: every `of`-th unit of images."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise PlanError(f"shard: got {self}, expected i/n with 1 ≤ i ≤ n, as in 2/8")

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse a text such as `2/8`."""
        number, slash, of = text.partition("/")
        if not (slash and number.isdecimal() and of.isdecimal()):
            raise PlanError(f"shard: got {text!r}, expected i/n, as in 2/8")
        return cls(int(number), int(of))


WHOLE = Shard(1, 1)


@dataclass
class Statistics:
    """The statistics of one or several shards of a round.

    A round that determines thresholds has `histograms`, one for each scale. The last round has `counts`
    (images, scales, steps), the patch tokens that run each step, in arbitrary order of images, and `tallies`, which
    are sums over images: `labelled` images, `right` predictions of the trained model, predictions `KIND.alike`
    (scales,) that equal those of the trained model, predictions `KIND.right` (scales,) that equal the label, and
    `threshold.decisions` (scales, steps), patch tokens that are routed as in the trained model.
    """

    run: Run
    round: int  # from 0
    shards: tuple[Shard, ...]
    thresholds: tuple[Thresholds, ...] = ()  # applied in this round, for each scale
    images: int = 0  # that could be read
    digest: int = 0  # sum of a digest of name and pixels of each image, modulo DIGESTS
    histograms: list[Histogram] = field(default_factory=list)
    counts: NDArray[Any] | None = None
    tallies: dict[str, Any] = field(default_factory=dict)
    bad: list[tuple[str, str]] = field(default_factory=list)  # unreadable: name and reason

    @property
    def complete(self) -> bool:
        """Whether all shards are included."""
        return len(self.shards) == self.shards[0].of

    def check_bad(self, allowed: int) -> None:
        """Raise ImageError if more than `allowed` images could not be read."""
        if len(self.bad) > allowed:
            raise ImageError(
                f"unreadable images: {len(self.bad)} so far, --max-bad allows {allowed}; repair or remove them, or "
                f"raise --max-bad:\n{listed([reason for _, reason in self.bad], LISTED)}"
            )

    def agreement(self, kind: str, scale: int = 0) -> float:
        """Return the top-1 agreement of this kind of routing with the trained model."""
        return int(self.tallies[f"{kind}.alike"][scale]) / self.images

    def top1(self, kind: str, scale: int = 0) -> float | None:
        """Return the top-1 accuracy; None unless every image has a label."""
        return self._of_labels(self.tallies[f"{kind}.right"][scale])

    @property
    def trained_top1(self) -> float | None:
        """The top-1 accuracy of the trained model; None unless every image has a label."""
        return self._of_labels(self.tallies["right"])

    def _of_labels(self, right: Any) -> float | None:
        return int(right) / self.images if int(self.tallies["labelled"]) == self.images else None

    def save(self, path: Path) -> None:
        """Write a .npz file, atomically."""
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
        write_bytes(path, content.getvalue(), replaces=any_file)

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read a file written by `save`, without unpickling; PlanError if it is not one."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return cls._of_arrays(arrays)
        except _UNREADABLE as error:
            raise PlanError(
                f"{path} is not a complete {FORMAT} file ({_first_line(error)}); remove it and run its shard again"
            ) from None

    @classmethod
    def _of_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Statistics:
        """From the arrays of a file; what a round must have is checked by `checks.problems_of`."""
        text = arrays.pop("head").tobytes()
        parse_json(text, "its header", PlanError)
        head = Head.model_validate_json(text)
        histograms = arrays.pop("histograms", np.zeros((0, BINS), dtype=np.int64))
        if len(histograms) not in (0, len(head.run.scales)):
            raise ValueError(f"got {len(histograms)} histograms for {len(head.run.scales)} scales")
        if others := [name for name in arrays if name != "counts" and not name.startswith("tally.")]:
            raise ValueError(f"got unknown arrays {', '.join(others)}")
        return cls(
            Run(**head.run.model_dump()),
            round=head.round,
            shards=tuple(Shard(*shard) for shard in head.shards),
            thresholds=head.thresholds,
            images=head.images,
            digest=head.digest,
            histograms=[Histogram(row) for row in histograms],
            counts=arrays.pop("counts", None),
            tallies={name.removeprefix("tally."): array for name, array in arrays.items()},
            bad=list(head.bad),
        )


class HeadRun(Strict):
    """The fields of a `Run` in a file."""

    checkpoint: str
    images: str
    count: Count
    mode: Literal["threshold", "topk", "depth"]
    scales: Annotated[tuple[Positive, ...], Field(min_length=1)]


class Head(Strict):
    """The numbers of a file beside its arrays."""

    format: Literal["morvit-statistics/1"]
    run: HeadRun
    round: Annotated[int, Field(ge=0)]
    shards: Annotated[tuple[tuple[int, int], ...], Field(min_length=1)]
    thresholds: tuple[tuple[Finite | None, ...], ...]
    images: Annotated[int, Field(ge=0)]
    digest: Annotated[int, Field(ge=0)]
    bad: tuple[tuple[str, str], ...]


# raised by numpy, zipfile and the checks of the header for a damaged or foreign file
_UNREADABLE = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, RuntimeError, SyntaxError),
    *(MemoryError, ArithmeticError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError),
    *(ConfigError, PlanError),
)


def _first_line(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return explain(error).splitlines()[0].removeprefix("  - ")
    return (str(error).splitlines() or [type(error).__name__])[0]


def join(parts: Iterable[Statistics]) -> Statistics:
    """Join shards of one round; PlanError for different runs, rounds or numbers of shards, or for duplicates."""
    return reduce(_both, parts)


def _both(a: Statistics, b: Statistics) -> Statistics:
    if a.run != b.run:
        raise PlanError(
            f"shards of different runs: {a.run.differences(b.run)}; use a separate folder for each run"
        )
    if a.round != b.round:
        raise PlanError(f"got statistics of rounds {a.round + 1} and {b.round + 1}, expected one round")
    shards = tuple(sorted(a.shards + b.shards, key=lambda shard: shard.number))
    if len({shard.of for shard in shards}) > 1 or len(set(shards)) != len(shards):
        raise PlanError(f"got shards {shard_names(shards)}, expected distinct shards of one division")
    if unlike := _unlike(a, b):
        raise PlanError(
            f"round {a.round + 1}: shards {shard_names(a.shards)} and {shard_names(b.shards)} have not the same "
            f"arrays ({', '.join(unlike)}); remove the files of this round, and run the shards again"
        )
    if a.thresholds != b.thresholds:
        raise PlanError(
            f"round {a.round + 1}: shards {shard_names(a.shards)} and {shard_names(b.shards)} used different "
            "thresholds, because a previous round was repeated; remove the files of this round and of later rounds, "
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


def _unlike(a: Statistics, b: Statistics) -> list[str]:
    """Arrays that one of two shards with readable images has and the other has not."""
    if len(a.histograms) != len(b.histograms):
        return ["histograms"]
    if not (a.images and b.images):
        return []
    names = [{*one.tallies, *(["counts"] if one.counts is not None else [])} for one in (a, b)]
    return sorted(names[0] ^ names[1])


def shard_names(shards: Iterable[Shard]) -> str:
    """Return a list of shards, such as `1/3, 2/3`."""
    return ", ".join(map(str, shards))


def add_tallies(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Add tallies by name; a shard without readable images has none."""
    return {name: a.get(name, 0) + b.get(name, 0) for name in a | b}


def _concatenated(a: NDArray[Any] | None, b: NDArray[Any] | None) -> NDArray[Any] | None:
    return np.concatenate([a, b]) if a is not None and b is not None else b if a is None else a
