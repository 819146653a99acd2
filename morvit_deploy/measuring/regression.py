"""Is a bundle slower than in an earlier run, by more than is allowed and more than both runs scatter? No torch.

The runs cannot take turns, so their blocks are compared as groups: a bundle is slower only if the middle half of the
new blocks lies beyond the limit over the old median, and the new median beyond the limit over the middle half of the
old blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from morvit_deploy.errors import CheckFailed, ConfigError
from morvit_deploy.measuring.core.inputs import SYNTHETIC
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.report import Table, three_digits
from morvit_deploy.strict_json import read_object
from morvit_deploy.timing.result import FORMAT

SAME_MACHINE = (
    "processor",
    "cores",
    "system",
)  # of the conditions: on another, times say nothing of the bundle


@dataclass(frozen=True)
class Earlier:
    """A result of `bench -o`: where and on what it was measured; by bundle its batch and one figure a block, ms."""

    path: Path
    device: str
    machine: Mapping[str, Any]
    threads: int
    inputs: str  # what was fed
    blocks_ms: Mapping[str, tuple[int, tuple[float, ...]]]

    def check(self, result: BenchResult) -> None:
        """ConfigError where the two runs cannot be compared."""
        now = {name: result.conditions["machine"][name] for name in SAME_MACHINE}
        then = {name: self.machine.get(name) for name in SAME_MACHINE}
        for what, old, new in (
            ("device", self.device, result.device),
            ("machine", then, now),
            ("threads", self.threads, result.conditions["threads"]),
        ):
            if old != new:
                raise ConfigError(
                    f"{self.path} was measured with another {what}: got {old}, expected {new}; measure the earlier "
                    "bundle again here"
                )
        self._check_inputs(result)

    def _check_inputs(self, result: BenchResult) -> None:
        """Where a bucket is chosen for each image, synthetic pictures take other buckets than the user's."""
        chosen = any(block.bucket for one in result.measured for block in one.blocks)
        inputs = result.conditions["inputs"]
        if chosen and (inputs == SYNTHETIC) != (self.inputs == SYNTHETIC):
            raise ConfigError(
                f"{self.path} was measured on other pictures, which take other buckets: got {self.inputs}, expected "
                f"{inputs}; give both runs the same --images"
            )


@dataclass(frozen=True)
class Change:
    """One bundle in both runs."""

    name: str
    before_ms: tuple[float, ...]  # a figure a block
    now_ms: tuple[float, ...]
    limit: float  # relative, as in 0.05

    @property
    def slower(self) -> float:
        """Relative: 0.1 for a tenth slower, negative for faster."""
        return median(self.now_ms) / median(self.before_ms) - 1

    @property
    def fails(self) -> bool:
        """Is it slower than allowed, beyond the noise of both runs?"""
        factor = 1 + self.limit
        beyond_median = np.percentile(self.now_ms, 25) > factor * median(self.before_ms)
        beyond_spread = median(self.now_ms) > factor * np.percentile(self.before_ms, 75)
        return bool(beyond_median and beyond_spread)


def read_earlier(path: Path) -> Earlier:
    """Read a result of `bench -o`; ConfigError for anything else."""
    found = read_object(path, advice="give a file that `bench -o` wrote")
    if found.get("format") != FORMAT or "bundles" not in found or "verdict" in found:
        raise ConfigError(f"{path}: expected a result of `bench -o`, with a list of bundles")
    try:
        blocks = {
            Path(one["bundle"]).name: (one["batch"], _figures(one["blocks"])) for one in found["bundles"]
        }
        known = found["conditions"]
        return Earlier(path, found["device"], known["machine"], known["threads"], known["inputs"], blocks)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged ({error}); measure again") from error


def _figures(blocks: Sequence[Mapping[str, Any]]) -> tuple[float, ...]:
    """As `Measured.block_figures_ms`: means where a bucket was chosen, else medians."""
    adaptive = any(block.get("bucket") for block in blocks)
    figures = tuple(float((fmean if adaptive else median)(block["ms"])) for block in blocks)
    if not figures:
        raise ValueError("a bundle without blocks")
    return figures


def changes(result: BenchResult, earlier: Earlier, limit: float) -> list[Change]:
    """Each bundle of the result that the earlier run has, by the folder's name, or the only one of both.

    ConfigError where they have none in common, or another batch.
    """
    earlier.check(result)
    named = {Path(one.name).name: one for one in result.measured}
    pairs = [(name, name) for name in named if name in earlier.blocks_ms]
    if not pairs and len(named) == len(earlier.blocks_ms) == 1:
        pairs = [(next(iter(named)), next(iter(earlier.blocks_ms)))]
    if not pairs:
        raise ConfigError(
            f"{earlier.path} has the bundles {', '.join(earlier.blocks_ms)}, and none of {', '.join(named)}; give a "
            "result of the same bundles"
        )
    found = []
    for new, old in pairs:
        batch, before = earlier.blocks_ms[old]
        if batch != named[new].batch:
            raise ConfigError(
                f"{earlier.path}: {old} was measured at batch {batch}, now at {named[new].batch}"
            )
        found.append(Change(new, before, tuple(named[new].block_figures_ms), limit))
    return found


def change_table(found: Sequence[Change], earlier: Earlier) -> Table:
    """Both medians, the change, and whether it is within the limit."""
    rows = [
        (
            one.name,
            three_digits(median(one.before_ms)),
            three_digits(median(one.now_ms)),
            f"{one.slower:+.1%}".replace("%", " %"),
            "slower" if one.fails else "within the limit",
        )
        for one in found
    ]
    caption = f"at most {found[0].limit:.1%} slower, beyond the spread of both runs' blocks".replace(
        "%", " %"
    )
    columns = ("bundle", "before ms", "now ms", "change", "outcome")
    return Table(f"Against {earlier.path.name}", columns, rows, numeric=(1, 2, 3), caption=caption)


def check_changes(found: Sequence[Change]) -> None:
    """CheckFailed if a bundle is slower than allowed."""
    if slow := [one for one in found if one.fails]:
        listed = ", ".join(f"{one.name} by {_percent(one.slower)}" for one in slow)
        raise CheckFailed(
            f"slower than before: {listed}; at most {_percent(slow[0].limit)} is allowed, and the blocks of both "
            "runs spread less than that"
        )


def _percent(share: float) -> str:
    return f"{share:.1%}".replace("%", " %")
