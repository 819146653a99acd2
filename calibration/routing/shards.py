"""A folder of statistics that several processes write, with a file for each round and shard. No torch.

Thresholds are a function of the joined statistics, so every process can compute them: there is no coordinator, and a
process that was stopped continues where it was.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from morvit_deploy.calibration.routing.checks import problems_of
from morvit_deploy.calibration.routing.statistics import Run, Shard, Statistics, join, shard_names
from morvit_deploy.errors import OutputError, PlanError, listed
from morvit_deploy.model.config import Config

_NAME = re.compile(r"round(\d+)-shard(\d+)of(\d+)\.npz")


@dataclass(frozen=True)
class StatisticsFolder:
    """The statistics of one run. Rounds count from 0, in file names from 1.

    Files of the checkpoint with the hash `sha256` are checked against its configuration. Others belong to another
    run, which the caller reports.
    """

    folder: Path
    config: Config
    sha256: str

    def make(self) -> None:
        """Create the folder; OutputError if this is not possible."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"--stats: cannot create {self.folder}: {error.strerror}") from None

    def path(self, round: int, shard: Shard) -> Path:
        """Return the file of a round and shard."""
        return self.folder / f"round{round + 1:02}-shard{shard.number}of{shard.of}.npz"

    def has(self, round: int, shard: Shard, run: Run) -> bool:
        """Whether a shard has completed a round; PlanError if it belongs to another run."""
        if shard not in self._shards(round, own=shard):
            return False
        found = self._load(round, shard)
        if found.run != run:
            raise PlanError(
                f"{self.path(round, shard)} belongs to another run: {found.run.differences(run)}; use a separate "
                "folder for each run"
            )
        return True

    def joined(self, round: int) -> Statistics | None:
        """Return the joined statistics of a round, None while shards are missing."""
        shards = self._shards(round)
        if not shards or len(shards) < shards[0].of:
            return None
        parts = [self._load(round, shard) for shard in shards]
        try:
            whole = join(parts)
        except ValueError as error:  # of another checkpoint, whose files were not checked one by one
            raise PlanError(
                f"{self.folder}: the shards of round {round + 1} do not fit together ({error}); remove them and run "
                "the shards again"
            ) from None
        self._check(whole, f"{self.folder}: round {round + 1}", "the files of this round and of later rounds")
        return whole

    def missing(self, round: int) -> list[Shard]:
        """Return the missing shards of a round; empty if no shard has completed it."""
        done = self._shards(round)
        every = [Shard(number, done[0].of) for number in range(1, done[0].of + 1)] if done else []
        return [shard for shard in every if shard not in done]

    def _load(self, round: int, shard: Shard) -> Statistics:
        path = self.path(round, shard)
        found = Statistics.load(path)
        if (found.round, found.shards) != (round, (shard,)):
            raise PlanError(
                f"{path} contains round {found.round + 1} of shard {shard_names(found.shards)}, so it was renamed; "
                "remove it"
            )
        self._check(found, str(path), "it")
        return found

    def _check(self, found: Statistics, where: str, what: str) -> None:
        if found.run.checkpoint == self.sha256 and (problems := problems_of(found, self.config)):
            raise PlanError(
                f"{where} contradicts itself or the checkpoint; remove {what} and run the shard again:\n"
                f"{listed(problems)}"
            )

    def _shards(self, round: int, own: Shard | None = None) -> list[Shard]:
        """Return the completed shards of a round; PlanError if the images were divided differently."""
        found = []
        for path in self.folder.glob(f"round{round + 1:02}-shard*of*.npz"):
            match = _NAME.fullmatch(path.name)
            if match is None:
                continue
            number, of = int(match[2]), int(match[3])
            if not 1 <= number <= of or path.name != self.path(round, Shard(number, of)).name:
                raise PlanError(
                    f"{path} is not named as a shard's file, roundRR-shardIofN.npz with I from 1 to N; remove it"
                )
            found.append(Shard(number, of))
        found.sort(key=lambda shard: (shard.of, shard.number))
        together = found if own is None else [*found, own]
        if len({shard.of for shard in together}) > 1:
            given = "" if own is None else f", this one is {own}"
            raise PlanError(
                f"{self.folder}: round {round + 1} has shards {shard_names(found)}{given}; expected the same number "
                "of shards: remove the other files, or use an empty folder"
            )
        return found
