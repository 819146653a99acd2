"""What a pass over some of the images leaves behind: histograms or counts, joined to the same bits in any order.

Calibration is sequential: round r counts the router logits at the r-th routed step under the thresholds of the
steps before it, and the last round counts who ran. A shard is a part of the images; its statistics of one round are
one file. No torch.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.calibration.histograms import BINS, Histogram
from morvit_deploy.errors import PlanError
from morvit_deploy.files import write_bytes

FORMAT = "morvit-statistics/1"


@dataclass(frozen=True)
class Run:
    """Which calibration some statistics belong to: two with the same fields see the same images the same way."""

    checkpoint: str  # sha256
    images: str  # sha256 over the chosen files' names and labels
    count: int
    mode: str
    scales: tuple[float, ...]
    max_bad: int = 0  # images that may be unreadable

    def differences(self, other: Run) -> str:
        """What differs, for a message."""
        a, b = asdict(self), asdict(other)
        return ", ".join(f"{name} {a[name]!r} and {b[name]!r}" for name in a if a[name] != b[name])


@dataclass(frozen=True)
class Shard:
    """Part `number` of `of` (from 1): every `of`-th unit of images."""

    number: int = 1
    of: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise PlanError(f"shard: got {self.number}/{self.of}, expected i/n with 1 ≤ i ≤ n, as in 2/8")

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
    """One shard's, or several joined shards', statistics of one round.

    A round of logits has `histograms`, one for each scale. The last round has `records`: arrays with a row for each
    image. `bad` are images that could not be read, with the reason.
    """

    run: Run
    round: int
    shards: tuple[Shard, ...]
    histograms: list[Histogram] = field(default_factory=list)
    records: dict[str, NDArray] = field(default_factory=dict)
    alike: NDArray[np.int64] | None = None  # (scales, steps) patch tokens treated as the trained model does
    bad: list[tuple[str, str]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Are all shards in it?"""
        return len(self.shards) == self.shards[0].of

    def save(self, path: Path) -> None:
        """Write to one .npz file, whole or not at all."""
        head = {
            "format": FORMAT,
            "run": asdict(self.run),
            "round": self.round,
            "shards": [(shard.number, shard.of) for shard in self.shards],
            "bad": self.bad,
        }
        arrays = {f"record.{name}": array for name, array in self.records.items()}
        if self.histograms:
            arrays["histograms"] = np.stack([histogram.counts for histogram in self.histograms])
        if self.alike is not None:
            arrays["alike"] = self.alike
        content = io.BytesIO()
        np.savez_compressed(content, head=np.frombuffer(json.dumps(head).encode(), dtype=np.uint8), **arrays)
        write_bytes(path, content.getvalue())

    @classmethod
    def load(cls, path: Path) -> Statistics:
        """Read what `save` wrote; PlanError for anything else. Nothing is unpickled."""
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            head: dict[str, Any] = json.loads(arrays.pop("head").tobytes())
            if head["format"] != FORMAT:
                raise ValueError(head["format"])
            run = Run(**head["run"] | {"scales": tuple(head["run"]["scales"])})
            counts = arrays.pop("histograms", np.zeros((0, BINS), dtype=np.int64))
            return cls(
                run,
                head["round"],
                tuple(Shard(*shard) for shard in head["shards"]),
                [Histogram(row) for row in counts],
                {name.removeprefix("record."): a for name, a in arrays.items() if name.startswith("record.")},
                arrays.get("alike"),
                [(name, reason) for name, reason in head["bad"]],
            )
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise PlanError(
                f"{path} is not {FORMAT} of `calibrate --shard`: {error}; remove it and run its shard again"
            ) from None


def join(parts: Sequence[Statistics]) -> Statistics:
    """All shards of one round as one; PlanError for shards of different runs, or one twice."""
    parts = sorted(parts, key=lambda part: part.shards[0].number)
    first = parts[0]
    for other in parts[1:]:
        if other.run != first.run:
            raise PlanError(
                f"shards of different runs: {first.run.differences(other.run)}; "
                "give each run a folder of its own"
            )
        if other.round != first.round:
            raise PlanError(f"got statistics of rounds {first.round} and {other.round}, expected one round")
    shards = sorted((shard for part in parts for shard in part.shards), key=lambda shard: shard.number)
    if len({shard.of for shard in shards}) > 1 or len(set(shards)) != len(shards):
        told = ", ".join(f"{shard.number}/{shard.of}" for shard in shards)
        raise PlanError(f"got shards {told}, expected each of one division once")
    histograms = []
    for same in zip(*(part.histograms for part in parts), strict=True):
        total = Histogram.empty()
        for histogram in same:
            total = total.merge(histogram)
        histograms.append(total)
    records = {name: np.concatenate([part.records[name] for part in parts]) for name in first.records}
    alike = None if first.alike is None else np.sum([part.alike for part in parts], axis=0)
    bad = sorted(entry for part in parts for entry in part.bad)
    return Statistics(first.run, first.round, tuple(shards), histograms, records, alike, bad)
