"""`morvit-deploy calibrate`."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import (
    CheckpointArg,
    ForceOption,
    JsonOption,
    UpscaleOption,
    emit,
    progress_bar,
    stderr,
)
from morvit_deploy.cli.shared.sources import opened, takes_source
from morvit_deploy.errors import OutputError, PlanError

if TYPE_CHECKING:
    from morvit_deploy.calibration.routing.statistics import Shard
    from morvit_deploy.planning.rounds import Calibrated, Waiting

Files = tuple[Path, Path, Path]  # plan, its front as numbers, as a picture
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


@command("calibrate")
@takes_source
def calibrate(
    checkpoint: CheckpointArg = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Folder of images like those it will meet (with labels.csv or class subfolders, also top-1).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Plan file to write; its Pareto front goes beside it.")
    ] = Path("plan.json"),
    mode: Annotated[
        Mode | None,
        typer.Option(
            help="threshold: easy images are cheap (default); topk: the same number of tokens for every image. "
            "token_choice has its own.",
            show_default=False,
        ),
    ] = None,
    buckets: Annotated[
        int | None,
        typer.Option(
            "--buckets",
            min=1,
            help="Graphs in the ladder, `full` among them (default: as many as gain 2 % each, at most 6).",
            show_default=False,
        ),
    ] = None,
    cost: Annotated[
        CostName, typer.Option(help="Fit buckets to multiply-accumulates, or to milliseconds measured here.")
    ] = CostName.macs,
    budget_macs: Annotated[
        float | None,
        typer.Option(
            "--budget-macs", help="Most expected MACs of an image, as in 1.2e9.", show_default=False
        ),
    ] = None,
    budget_ms: Annotated[
        float | None,
        typer.Option(
            "--budget-ms", help="Most expected milliseconds of an image, measured here.", show_default=False
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", min=1, help="Use at most this many images, a seeded choice.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of that choice.")] = 0,
    max_bad: Annotated[
        int, typer.Option("--max-bad", min=0, help="Images that may be unreadable; they are listed.")
    ] = 0,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            help="Count only part i of n, as in 2/8, into --stats; then --merge.",
            show_default=False,
        ),
    ] = None,
    stats: Annotated[
        Path | None,
        typer.Option("--stats", help="Folder that all shards of a run share.", show_default=False),
    ] = None,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Minutes a shard waits for the others in each round.")
    ] = 0.0,
    merge: Annotated[bool, typer.Option("--merge", help="Join the shards in --stats to the plan.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            help="Run the shards on this Ray cluster: its address, or `local`.",
            show_default=False,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, help="For measured costs (default: all cores).", show_default=False),
    ] = None,
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
    files = _files(out)
    if part is None:
        _check_free(files, force)
    with opened(checkpoint, said) as source, progress_bar() as (tell, progress):
        tell("loading PyTorch")
        from morvit_deploy.planning import rounds as planning

        wish = planning.Wish(
            mode=(mode or Mode.threshold).value, buckets=buckets, cost=cost.value, budget_macs=budget_macs,
            budget_ms=budget_ms, threads=threads,
        )  # fmt: skip  # two lines read better than six
        how: dict[str, Any] = {"wish": wish, "max_bad": max_bad, "tell": tell, "progress": progress}
        choice: dict[str, Any] = {"limit": limit, "seed": seed, "upscale": upscale}
        calibrated, waiting = None, None
        if part is not None:
            assert images is not None and stats is not None
            waiting = planning.calibrate_shard(
                source.folder, images, stats, part, wait_s=60 * wait, **choice, **how
            )
        elif merge:
            assert stats is not None
            calibrated = planning.merge_shards(source.folder, stats, **how)
        else:
            assert images is not None
            calibrated = planning.calibrate(source.folder, images, ray=ray, **choice, **how)
    if calibrated is None:
        _tell_shard(str(part), waiting, as_json)
        return
    if mode is not None and calibrated.plan.mode == "depth":
        stderr().print(f"note: token_choice chooses depths itself; --mode {mode.value} changes nothing")
    _write(calibrated, files)
    _report(calibrated, files, as_json)


def _parse(shard: str) -> Shard:
    from morvit_deploy.calibration.routing.statistics import Shard

    return Shard.parse(shard)


def _files(out: Path) -> Files:
    """The plan's file, and beside it the Pareto front as numbers and as a picture."""
    if not out.name:
        raise OutputError(f"-o {out} is a folder, expected a file name")
    return out, out.with_name(f"{out.stem}.pareto.json"), out.with_name(f"{out.stem}.pareto.png")


def _write(calibrated: Calibrated, files: Files) -> None:
    """All or nothing: everything is made first, and the plan, which names the rest, is written last."""
    from morvit_deploy.files import write_bytes
    from morvit_deploy.planning.front import draw

    out, pareto, picture = files
    numbers = json.dumps(calibrated.as_dict(), indent=1, allow_nan=False) + "\n"
    contents = {
        pareto: numbers.encode(),
        picture: draw(calibrated),
        out: calibrated.plan.to_json().encode(),
    }
    new = [path for path in contents if not path.exists()]
    try:
        for path, content in contents.items():
            write_bytes(path, content)
    except BaseException:  # an interrupt, too
        for path in new:
            path.unlink(missing_ok=True)
        raise


def _report(calibrated: Calibrated, files: Files, as_json: bool) -> None:
    from morvit_deploy.planning.front import calibration_report

    out, _, picture = files
    console = stderr()
    for _, reason in calibrated.bad:
        console.print(f"warning: not read: {reason}", markup=False, highlight=False)
    for remark in calibrated.remarks:
        console.print(f"warning: {remark}", markup=False, highlight=False, style="yellow")
    data = {
        "plan": calibrated.plan.model_dump(mode="json"),
        "pareto": calibrated.as_dict(),
        "files": list(map(str, files)),
    }
    emit(calibration_report(calibrated, out, picture), data, as_json)


def _tell_shard(shard: str, waiting: Waiting | None, as_json: bool) -> None:
    if as_json:
        facts = {} if waiting is None else {"round": waiting.round, "rounds": waiting.rounds}
        missing = [] if waiting is None else list(map(str, waiting.missing))
        done = {"shard": shard, "done": waiting is None, **facts, "missing": missing}
        typer.echo(json.dumps(done, indent=2))
        return
    console = stderr()
    if waiting is None:
        console.print(f"shard {shard}: all rounds are done; when every shard is, join them with --merge")
        return
    console.print(
        f"shard {shard}: round {waiting.round} of {waiting.rounds} is done; the next needs it from shards "
        f"{', '.join(map(str, waiting.missing))} too. Run them, then this line again (or give --wait MINUTES)"
    )


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


def _check_free(files: Files, force: bool) -> None:
    for path in files:
        if path.is_dir():
            raise OutputError(f"-o {path} is a folder, expected a file name")
        if path.exists() and not force:
            raise OutputError(f"{path} exists; pass --force to replace it, or choose another place with -o")
