"""A folder of statistics that several processes fill, a file for each round and shard. No torch.

Thresholds are a function of the joined statistics, so every process can work them out on its own: there is no
coordinator, and a process that was stopped goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from morvit_deploy.calibration.statistics import Run, Shard, Statistics, join
from morvit_deploy.errors import PlanError


@dataclass(frozen=True)
class StatisticsFolder:
    """Where the statistics of one run are."""

    folder: Path

    def path(self, round: int, shard: Shard) -> Path:
        """The file of one round and shard; rounds count from 1 in names."""
        return self.folder / f"round{round + 1:02}-shard{shard.number}of{shard.of}.npz"

    def own(self, round: int, shard: Shard, run: Run) -> Statistics | None:
        """What this shard has already counted in a round; PlanError if it was for another run."""
        path = self.path(round, shard)
        if not path.exists():
            return None
        found = Statistics.load(path)
        if found.run != run:
            raise PlanError(
                f"{path} is of another run: {found.run.differences(run)}; give this run a folder of its own"
            )
        return found

    def joined(self, round: int) -> Statistics | None:
        """All shards of a round as one, None while some are missing."""
        parts = [Statistics.load(path) for path in self._files(round)]
        whole = join(parts) if parts else None
        return whole if whole and whole.complete else None

    def missing(self, round: int) -> list[str]:
        """Shards of a round that are still to come, as i/n; empty when none has begun."""
        names = [path.stem.partition("-shard")[2].partition("of") for path in self._files(round)]
        if not names:
            return []
        done, of = {int(number) for number, _, _ in names}, int(names[0][2])
        return [f"{number}/{of}" for number in range(1, of + 1) if number not in done]

    def _files(self, round: int) -> list[Path]:
        return sorted(self.folder.glob(f"round{round + 1:02}-shard*of*.npz"))
