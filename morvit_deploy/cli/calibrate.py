"""`morvit-deploy calibrate`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from morvit_deploy.cli.app import command
from morvit_deploy.cli.calibrating import result
from morvit_deploy.cli.calibrating.merges import calibrate_merges, is_unrouted, macs_of
from morvit_deploy.cli.shared.console import Share, Tell, note, working
from morvit_deploy.cli.shared.derived import Group
from morvit_deploy.cli.shared.groups import OUTPUT, Checkpoint, Exif, Output, Page, Upscale
from morvit_deploy.cli.shared.pages import check_page, write_page
from morvit_deploy.cli.shared.pictures import say_folder
from morvit_deploy.cli.shared.sources import AlsoForeign, opened
from morvit_deploy.errors import PlanError
from morvit_deploy.exporters.options import LARGEST_SEED, Help
from morvit_deploy.files import check_files, check_outside

if TYPE_CHECKING:
    from morvit_deploy.calibration.routing.statistics import Shard
    from morvit_deploy.planning.calibrated import Calibrated
    from morvit_deploy.planning.rounds import Waiting

COUNTING = ("limit", "seed", "upscale", "exif")
PLANNING = (
    "buckets",
    "cost",
    "budget_macs",
    "budget_ms",
    "threads",
    "pick",
    "scale",
    "min_agreement",
    "allow_worse",
)


@dataclass(frozen=True)
class Counted(Group):
    """Which images the statistics come from."""

    panel = "Images"
    images: Annotated[
        Path | None,
        Help(
            "Folder of images like those the model will meet; with labels.csv or class subfolders, top-1 is reported "
            "too.",
            "DIR",
        ),
    ] = None
    limit: Annotated[int | None, Help("Use at most N images, a random choice.", least=1)] = None
    seed: Annotated[
        int,
        Help("Random seed for choosing the --limit subset.", least=0, most=LARGEST_SEED, show_default=True),
    ] = 0
    max_bad: Annotated[
        int, Help("Number of images that may be unreadable; they are listed.", least=0, show_default=True)
    ] = 0
    upscale: Upscale = False
    exif: Exif = False

    def say(self, source: Path) -> dict[str, Any] | None:
        """Print which files of the folder are used; None where no folder was given."""
        return None if self.images is None else say_folder(self.images, source, exif=self.exif)


@dataclass(frozen=True)
class Wanted(Group):
    """What the plan should be like."""

    panel = "Plan"
    mode: Annotated[
        Literal["threshold", "topk"] | None,
        Help(
            "threshold: easy images take fewer tokens; topk: the same number for every image (default: whichever is "
            "cheaper at the same accuracy). Ignored by token_choice, which has its own mode. For a checkpoint with "
            "thresholds of its own, buckets are fitted to these, unless topk is given."
        ),
    ] = None
    buckets: Annotated[
        int | None,
        Help("Number of buckets, `full` included (default: as many as gain 2 % each, at most 6).", least=1),
    ] = None
    cost: Annotated[
        Literal["macs", "measured"],
        Help("Fit buckets to multiply-accumulates, or to milliseconds measured here.", show_default=True),
    ] = "macs"
    budget_macs: Annotated[
        str | None,
        Help(
            "Maximum expected MACs of an image, as in 1.2e9. Of a plain ViT, whose tokens are then merged, also a "
            "share of what it takes, as in 0.6x.",
            "MACS",
        ),
    ] = None
    budget_ms: Annotated[float | None, Help("Maximum expected milliseconds of an image, measured here.")] = (
        None
    )
    threads: Annotated[int | None, Help("Threads for measured costs (default: all cores).", least=1)] = None
    pick: Annotated[
        int | None, Help("Take this row of the table instead of the recommended one.", "ROW", least=1)
    ] = None
    scale: Annotated[
        float | None, Help("Take the plan of this scale instead of the recommended one; --mode tells which.")
    ] = None
    min_agreement: Annotated[
        float | None,
        Help(
            "Top-1 agreement with the trained model that the recommended plan keeps, 0 to 1 (default: not below the "
            "95 % interval of the trained model's top-1 on these images; without labels, of 99 % agreement).",
            least=0,
            most=1,
        ),
    ] = None
    allow_worse: Annotated[bool, Help("Write a plan that ruins the model.")] = False


@dataclass(frozen=True)
class Parts(Group):
    """Which part of the work is done: all of it, a shard, or the merge."""

    panel = "Several machines"
    shard: Annotated[
        str | None, Help("Count only part i of n, as in 2/8, into --stats; then --merge.", "I/N")
    ] = None
    stats: Annotated[Path | None, Help("Folder that all shards of a run share.", "DIR")] = None
    wait: Annotated[
        float, Help("Minutes a shard waits for the others in each round.", least=0, show_default=True)
    ] = 0.0
    merge: Annotated[bool, Help("Merge the shards in --stats into the plan.")] = False
    ray: Annotated[
        str | None, Help("Run the shards on this Ray cluster: its address, or `local`.", "ADDRESS")
    ] = None

    @property
    def part(self) -> Shard | None:
        """The shard to count; PlanError unless it is one."""
        from morvit_deploy.calibration.routing.statistics import Shard

        return None if self.shard is None else Shard.parse(self.shard)

    def check(self, images: Path | None) -> None:
        """PlanError for options that exclude or need one another."""
        if self.merge and (self.shard or self.ray or images):
            raise PlanError(
                "--merge joins what shards have counted; it takes --stats, and no --images, --shard or --ray"
            )
        if self.shard and self.ray:
            raise PlanError("--shard runs one part here and --ray all parts there; give one of them")
        if (self.shard or self.merge) and self.stats is None:
            raise PlanError("--shard and --merge need --stats, the folder that all shards of a run share")
        if self.stats is not None and not (self.shard or self.merge):
            raise PlanError("--stats goes with --shard or --merge; leave it out for one pass")
        if not self.merge and images is None:
            raise PlanError(
                "no --images given; thresholds and buckets are fitted to images like those the model will meet"
            )


@command(
    "calibrate",
    "morvit-deploy calibrate my-model --images photos",
    "morvit-deploy calibrate my-model --images photos --mode threshold --scale 0.7 -o plan.json",
)
def calibrate(
    checkpoint: Checkpoint = None,
    *,
    counted: Counted,
    wanted: Wanted,
    parts: Parts,
    out: Annotated[
        Path,
        Help(
            "Plan file to write, with its Pareto front beside it.",
            "FILE",
            show_default=True,
            short="-o",
            panel=OUTPUT,
        ),
    ] = Path("plan.json"),
    report: Page = None,
    output: Output,
    foreign: AlsoForeign,
) -> None:
    """Find thresholds and buckets on images, show what each choice costs and keeps, and recommend one."""
    parts.check(counted.images)
    _check_unused(counted, wanted, parts)
    part = parts.part
    from morvit_deploy.planning.calibrated import Calibrated, is_plan_file, plan_files, write_files

    files = plan_files(out)
    if part is None:
        check_files(files, force=output.force, replaces=is_plan_file, inputs=[checkpoint, counted.images])
        check_outside(out, counted.images)
    elif report is not None:
        raise PlanError("--report shows a plan, and --shard makes none; give it to --merge")
    check_page(report, force=output.force, inputs=[checkpoint, counted.images])
    with opened(checkpoint, foreign) as source:
        said = counted.say(source.folder)
        if is_unrouted(source.folder):
            shown = calibrate_merges(source.folder, counted, wanted, parts, out, output, said)
            write_page(report, shown, force=output.force)
            return
        with working("loading PyTorch") as (tell, progress):
            found = _run(source.folder, counted, wanted, parts, tell, progress)
    if not isinstance(found, Calibrated):
        result.print_shard(str(part), found, output.json)
        return
    _remark(found.plan.mode, wanted)
    write_files(found, files, force=output.force)
    shown = result.print_result(found, files, output.json, said)
    write_page(report, shown, force=output.force)


def _remark(mode: str, wanted: Wanted) -> None:
    """Say which wishes the plan has no use for."""
    if wanted.mode is not None and mode == "depth":
        note(f"token_choice chooses depths itself; --mode {wanted.mode} changes nothing")
    if wanted.buckets is not None and mode == "topk":
        note(
            f"a top-k plan has one bucket; --buckets {wanted.buckets} is for the threshold rows of the table"
        )


def _run(
    checkpoint: Path, counted: Counted, wanted: Wanted, parts: Parts, tell: Tell, progress: Share
) -> Calibrated | Waiting | None:
    """The plan; of a shard what it waits for, or None where it has counted all rounds."""
    from morvit_deploy.planning import rounds

    wish = asdict(wanted) | {"budget_macs": macs_of(wanted.budget_macs)}
    how: dict[str, Any] = {"max_bad": counted.max_bad, "tell": tell, "progress": progress}
    if parts.merge:
        assert parts.stats is not None
        return rounds.merge_shards(checkpoint, parts.stats, **wish, **how)
    assert counted.images is not None
    how |= {"limit": counted.limit, "seed": counted.seed, "upscale": counted.upscale, "exif": counted.exif}
    if (part := parts.part) is not None:
        assert parts.stats is not None
        how |= {"mode": wanted.mode or "threshold", "wait_s": 60 * parts.wait}
        return rounds.calibrate_shard(checkpoint, counted.images, parts.stats, part, **how)
    return rounds.calibrate(checkpoint, counted.images, ray=parts.ray, **wish, **how)


def _check_unused(counted: Counted, wanted: Wanted, parts: Parts) -> None:
    """PlanError for an option that this part of the work would not use."""
    shards_only = [name for name in COUNTING if getattr(counted, name)]
    merge_only = [name for name in PLANNING if getattr(wanted, name) != getattr(Wanted(), name)]
    for when, names, why in (
        (parts.merge, shards_only, "says what shards count; give it to every --shard, and not to --merge"),
        (parts.shard, merge_only, "says how the plan is made; give it to --merge, and not to --shard"),
        (not parts.shard and parts.wait, ["wait"], "is for --shard: only a shard waits for others"),
    ):
        if when and names:
            raise PlanError(f"{', '.join('--' + name.replace('_', '-') for name in names)} {why}")
