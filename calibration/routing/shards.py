"""A folder of statistics that several processes fill, a file for each round and shard. No torch.

Thresholds are a function of the joined statistics, so every process can work them out on its own: there is no
coordinator, and a process that was stopped goes on where it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from morvit_deploy.calibration.routing.statistics import Run, Shard, Statistics, join, told_of
from morvit_deploy.errors import OutputError, PlanError

_NAME = re.compile(r"round(\d+)-shard(\d+)of(\d+)\.npz")


@dataclass(frozen=True)
class StatisticsFolder:
    """Where the statistics of one run are. Rounds count from 0, in file names from 1."""

    folder: Path

    def make(self) -> None:
        """OutputError before any work when the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--stats {self.folder}: {error.strerror}; name a folder") from None

    def path(self, round: int, shard: Shard) -> Path:
        """The file of one round and shard."""
        return self.folder / f"round{round + 1:02}-shard{shard.number}of{shard.of}.npz"

    def has(self, round: int, shard: Shard, run: Run) -> bool:
        """Has this shard been counted in a round? PlanError if it was for another run."""
        if shard not in self._shards(round, beside=shard):
            return False
        found = self._load(round, shard)
        if found.run != run:
            raise PlanError(
                f"{self.path(round, shard)} is of another run: {found.run.differences(run)}; give this run a folder "
                "of its own"
            )
        return True

    def joined(self, round: int) -> Statistics | None:
        """All shards of a round as one, None while some are missing."""
        shards = self._shards(round)
        if not shards or len(shards) < shards[0].of:
            return None
        return join(self._load(round, shard) for shard in shards)

    def missing(self, round: int) -> list[Shard]:
        """Shards of a round that are still to come; empty when none has begun."""
        done = self._shards(round)
        every = [Shard(number, done[0].of) for number in range(1, done[0].of + 1)] if done else []
        return [shard for shard in every if shard not in done]

    def _load(self, round: int, shard: Shard) -> Statistics:
        path = self.path(round, shard)
        found = Statistics.load(path)
        if (found.round, found.shards) != (round, (shard,)):
            raise PlanError(
                f"{path} holds round {found.round + 1} of shard {told_of(found.shards)}; it was renamed: remove it"
            )
        return found

    def _shards(self, round: int, beside: Shard | None = None) -> list[Shard]:
        """Shards of a round that are there, and are of one division, that of `beside`."""
        found = []
        for path in self.folder.glob(f"round{round + 1:02}-shard*of*.npz"):
            match = _NAME.fullmatch(path.name)
            if match:
                found.append(Shard(int(match[2]), int(match[3])))
        found.sort(key=lambda shard: (shard.of, shard.number))
        together = found if beside is None else [*found, beside]
        if len({shard.of for shard in together}) > 1:
            given = "" if beside is None else f", this one is {beside}"
            raise PlanError(
                f"{self.folder}: round {round + 1} holds shards {told_of(found)}{given}; expected one division of "
                "the images in a round: remove the files of the other, or take an empty folder"
            )
        return found
