"""`morvit-deploy calibrate`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morvit_deploy.cli import calibrate_result as result
from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import (
    CheckpointArg,
    ForceOption,
    JsonOption,
    UpscaleOption,
    progress_bar,
    stderr,
)
from morvit_deploy.cli.shared.sources import opened, takes_source
from morvit_deploy.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

    from morvit_deploy.calibration.routing.statistics import Shard
    from morvit_deploy.planning.calibrated import Calibrated
    from morvit_deploy.planning.rounds import Waiting

COUNTING = ("--limit", "--seed", "--upscale")
PLANNING = ("--buckets", "--cost", "--budget-macs", "--budget-ms", "--threads")
WAITING = ("--wait",)


class Mode(str, Enum):
    """How tokens are chosen."""

    threshold = "threshold"
    topk = "topk"


class CostName(str, Enum):
    """What buckets are fitted to."""

    macs = "macs"
    measured = "measured"


ImagesOption = Annotated[
    Path | None,
    typer.Option(
        "--images",
        help="Folder of images like those it will meet (with labels.csv or class subfolders, also top-1).",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path, typer.Option("-o", "--out", help="Plan file to write; its Pareto front goes beside it.")
]
ModeOption = Annotated[
    Mode | None,
    typer.Option(
        help="threshold: easy images are cheap (default); topk: the same number of tokens for every image. "
        "token_choice has its own.",
        show_default=False,
    ),
]
BucketsOption = Annotated[
    int | None,
    typer.Option(
        "--buckets",
        min=1,
        help="Graphs in the ladder, `full` among them (default: as many as gain 2 % each, at most 6).",
        show_default=False,
    ),
]
CostOption = Annotated[
    CostName, typer.Option(help="Fit buckets to multiply-accumulates, or to milliseconds measured here.")
]
BudgetMacsOption = Annotated[
    float | None,
    typer.Option("--budget-macs", help="Most expected MACs of an image, as in 1.2e9.", show_default=False),
]
BudgetMsOption = Annotated[
    float | None,
    typer.Option(
        "--budget-ms", help="Most expected milliseconds of an image, measured here.", show_default=False
    ),
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", min=1, help="Use at most this many images, a seeded choice.", show_default=False),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of that choice.")]
MaxBadOption = Annotated[
    int, typer.Option("--max-bad", min=0, help="Images that may be unreadable; they are listed.")
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Count only part i of n, as in 2/8, into --stats; then --merge.",
        show_default=False,
    ),
]
StatsOption = Annotated[
    Path | None,
    typer.Option("--stats", help="Folder that all shards of a run share.", show_default=False),
]
WaitOption = Annotated[
    float, typer.Option("--wait", min=0, help="Minutes a shard waits for the others in each round.")
]
MergeOption = Annotated[bool, typer.Option("--merge", help="Join the shards in --stats to the plan.")]
RayOption = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Run the shards on this Ray cluster: its address, or `local`.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="For measured costs (default: all cores).", show_default=False),
]


@dataclass(frozen=True)
class Work:
    """Which images are counted, and which part of the work is done: all, a shard (`part`), or the merge."""

    images: Path | None
    limit: int | None
    seed: int
    upscale: bool
    max_bad: int
    part: Shard | None
    stats: Path | None
    wait_s: float
    merge: bool
    ray: str | None

    def run(
        self,
        checkpoint: Path,
        wish: dict[str, Any],
        tell: Callable[[str], None],
        progress: Callable[[float], None],
    ) -> Calibrated | Waiting | None:
        """The plan; of a shard what it waits for, or None where it has counted all rounds."""
        from morvit_deploy.planning import rounds

        if self.merge:
            assert self.stats is not None
            return rounds.merge_shards(
                checkpoint, self.stats, max_bad=self.max_bad, tell=tell, progress=progress, **wish
            )
        assert self.images is not None
        if self.part is not None:
            assert self.stats is not None
            return rounds.calibrate_shard(
                checkpoint, self.images, self.stats, self.part, wait_s=self.wait_s, limit=self.limit, seed=self.seed,
                upscale=self.upscale, mode=wish["mode"], max_bad=self.max_bad, tell=tell, progress=progress,
            )  # fmt: skip  # two lines read better than twelve
        return rounds.calibrate(
            checkpoint, self.images, ray=self.ray, limit=self.limit, seed=self.seed, upscale=self.upscale,
            max_bad=self.max_bad, tell=tell, progress=progress, **wish,
        )  # fmt: skip  # two lines read better than ten


@command("calibrate")
@takes_source
def calibrate(
    checkpoint: CheckpointArg = None,
    images: ImagesOption = None,
    out: OutOption = Path("plan.json"),
    mode: ModeOption = None,
    buckets: BucketsOption = None,
    cost: CostOption = CostName.macs,
    budget_macs: BudgetMacsOption = None,
    budget_ms: BudgetMsOption = None,
    limit: LimitOption = None,
    seed: SeedOption = 0,
    max_bad: MaxBadOption = 0,
    shard: ShardOption = None,
    stats: StatsOption = None,
    wait: WaitOption = 0.0,
    merge: MergeOption = False,
    ray: RayOption = None,
    threads: ThreadsOption = None,
    upscale: UpscaleOption = False,
    force: ForceOption = False,
    as_json: JsonOption = False,
    *,
    said: dict[str, Any],
) -> None:
    """Find thresholds and buckets on images, and show what each choice costs and is worth."""
    _check_options(images, shard, stats, merge, ray)
    given = {
        "--limit": limit, "--seed": seed, "--upscale": upscale, "--wait": wait, "--buckets": buckets,
        "--cost": cost is CostName.measured, "--budget-macs": budget_macs, "--budget-ms": budget_ms,
        "--threads": threads,
    }  # fmt: skip  # a list of names
    _check_parts([name for name, value in given.items() if value], shard is not None, merge)
    part = None if shard is None else _parse(shard)
    from morvit_deploy.planning.calibrated import Calibrated, check_files, plan_files, write_files

    files = plan_files(out)
    if part is None:
        check_files(files, force=force)
    work = Work(images, limit, seed, upscale, max_bad, part, stats, 60 * wait, merge, ray)
    with opened(checkpoint, said) as source, progress_bar() as (tell, progress):
        tell("loading PyTorch")
        wish: dict[str, Any] = {
            "mode": (mode or Mode.threshold).value, "buckets": buckets, "cost": cost.value,
            "budget_macs": budget_macs, "budget_ms": budget_ms, "threads": threads,
        }  # fmt: skip  # two lines read better than six
        found = work.run(source.folder, wish, tell, progress)
    if not isinstance(found, Calibrated):
        result.print_shard(str(part), found, as_json)
        return
    if mode is not None and found.plan.mode == "depth":
        stderr().print(f"note: token_choice chooses depths itself; --mode {mode.value} changes nothing")
    write_files(found, files)
    result.print_result(found, files, as_json)


def _parse(shard: str) -> Shard:
    from morvit_deploy.calibration.routing.statistics import Shard

    return Shard.parse(shard)


def _check_options(
    images: Path | None, shard: str | None, stats: Path | None, merge: bool, ray: str | None
) -> None:
    if merge and (shard or ray or images):
        raise PlanError(
            "--merge joins what shards have counted; it takes --stats, and no --images, --shard or --ray"
        )
    if shard and ray:
        raise PlanError("--shard runs one part here and --ray all parts there; give one of them")
    if (shard or merge) and stats is None:
        raise PlanError("--shard and --merge need --stats, the folder that all shards of a run share")
    if stats is not None and not (shard or merge):
        raise PlanError("--stats goes with --shard or --merge; leave it out for one pass")
    if not merge and images is None:
        raise PlanError(
            "no --images given; thresholds and buckets are fitted to images like those the model will meet"
        )


def _check_parts(given: list[str], shard: bool, merge: bool) -> None:
    """PlanError for an option that this part of the work would pass over."""
    for when, passed_over, why in (
        (merge, COUNTING, "says what shards count; give it to every --shard, and not to --merge"),
        (shard, PLANNING, "says how the plan is made; give it to --merge, and not to --shard"),
        (not shard, WAITING, "is for --shard: only a shard waits for others"),
    ):
        names = [name for name in given if name in passed_over]
        if when and names:
            raise PlanError(f"{', '.join(names)} {why}")
