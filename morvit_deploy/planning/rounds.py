"""Calibration of a plan: rounds of statistics, thresholds, buckets, and the choice on the Pareto front."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from morvit_deploy.calibration.buckets.choice import choose, recommend
from morvit_deploy.calibration.buckets.costs import Costs, MacCost
from morvit_deploy.calibration.buckets.plan import draft_plan, remarks_on
from morvit_deploy.calibration.buckets.points import points_of
from morvit_deploy.calibration.routing.checks import problems_between
from morvit_deploy.calibration.routing.cluster import Cluster
from morvit_deploy.calibration.routing.gathering import Source, Task, gather
from morvit_deploy.calibration.routing.sequence import OWN, Rounds, routed, scales_of
from morvit_deploy.calibration.routing.shards import StatisticsFolder
from morvit_deploy.calibration.routing.states import States
from morvit_deploy.calibration.routing.statistics import WHOLE, Shard, Statistics, shard_names
from morvit_deploy.errors import PlanError, listed
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.answers.accuracy import Floor, Kept, ruin_of
from morvit_deploy.model.checkpoint import fingerprint
from morvit_deploy.model.config import Config, load_config
from morvit_deploy.planning.calibrated import Calibrated
from morvit_deploy.planning.conclusion import named
from morvit_deploy.planning.wish import Cost, Mode, Wish

__all__ = ["Calibrated", "Waiting", "Wish", "calibrate", "calibrate_shard", "merge_shards"]

POLL_S = 1.0

Tell = Callable[[str], None]
Progress = Callable[[float], None]
Gather = Callable[[Task, Progress], Statistics]


@dataclass(frozen=True)
class Waiting:
    """The state of a shard whose next round requires the other shards."""

    round: int  # the last completed round, from 1
    rounds: int
    missing: list[Shard]


@checks_keywords()
def calibrate(
    checkpoint: str | Path,
    images: str | Path,
    *,
    mode: Mode | None = None,
    buckets: int | None = None,
    cost: Cost = "macs",
    budget_macs: float | None = None,
    budget_ms: float | None = None,
    threads: int | None = None,
    pick: int | None = None,
    scale: float | None = None,
    min_agreement: float | None = None,
    allow_worse: bool = False,
    limit: int | None = None,
    seed: int = 0,
    upscale: bool = False,
    exif: bool = False,
    max_bad: int = 0,
    ray: str | None = None,
    shards: int | None = None,
    tell: Tell = lambda stage: None,
    progress: Progress = lambda share: None,
) -> Calibrated:
    """Fit thresholds and buckets to a folder of images, in bounded memory; returns the plan and its Pareto front.

    The plan is the cheapest that keeps the trained model's accuracy on the images: top-1 not below its 95 % interval
    or, without labels, agreement not below the interval of 99 %. `min_agreement` replaces this floor. `mode`
    "threshold" makes easy images cheap, "topk" runs the same number of tokens for every image (default: whichever
    is cheaper); token_choice has a mode of its own. Where the checkpoint owns its thresholds, buckets are fitted to
    these, unless `mode` is "topk". `buckets` counts `full` too (default: as many as gain 2 % each,
    at most 6). They are fitted to MACs or, with `cost` "measured", to milliseconds on this machine with `threads`
    threads.

    Another plan is chosen by one of `budget_macs` or `budget_ms`, the most an image may cost on average (the most
    accurate plan within it), `pick`, a row of the report's table, and `scale`, a factor of the trained capacities. A
    plan that ruins the model is refused unless `allow_worse`.

    At most `limit` images are used, a choice seeded by `seed`; up to `max_bad` may be unreadable. `ray` is a Ray
    cluster's address, or `local`, and `shards` the number of parts there (default: one for each of its CPUs); see
    `calibrate_shard` for machines without Ray. `tell` is called with each stage, `progress` with the share done.

    Raises PlanError, ImageError, CheckpointError or TargetError, and AccuracyError for a plan that ruins the model.

    >>> found = md.calibrate("checkpoint", "photos", buckets=3)
    >>> print(found.conclusion)
    >>> found.save("plan.json")
    >>> md.export("checkpoint", "build/adaptive", plan=found.plan)
    """
    wish = Wish(mode, buckets, cost, budget_macs, budget_ms, threads, pick, scale, min_agreement, allow_worse)
    source = Source(Path(checkpoint).absolute(), Path(images).absolute(), limit, seed, upscale, max_bad, exif)
    config, rounds = _begin(source, wish)
    with ExitStack() as stack:
        count: Gather = partial(gather, states=States())
        if ray is not None:
            tell("starting Ray")
            count = stack.enter_context(Cluster(ray, shards)).gather
        while not rounds.complete:
            task = _next(source, rounds)
            tell(f"round {task.round + 1} of {rounds.needed}")
            rounds.add(count(task, progress))
    return make_plan(source.checkpoint, config, rounds, wish, tell, progress)


@checks_keywords()
def calibrate_shard(
    checkpoint: str | Path,
    images: str | Path,
    folder: str | Path,
    shard: str | Shard,
    *,
    mode: Mode = "threshold",
    limit: int | None = None,
    seed: int = 0,
    upscale: bool = False,
    exif: bool = False,
    max_bad: int = 0,
    wait_s: float = 0.0,
    tell: Tell = lambda stage: None,
    progress: Progress = lambda share: None,
) -> Waiting | None:
    """Gather the statistics of one shard of the images, round by round, in `folder`, which all shards share.

    `shard` is written as "2/8". Continues as far as the other shards allow, waits up to `wait_s` seconds for each
    round, and skips rounds that are already done. Returns None when all rounds of this shard are done, otherwise the
    shards that it waits for. `merge_shards` makes the plan. The other keywords are those of `calibrate`.

    >>> md.calibrate_shard("checkpoint", "photos", "stats", "2/8", wait_s=3600)
    """
    shard = Shard.parse(shard) if isinstance(shard, str) else shard
    source = Source(Path(checkpoint).absolute(), Path(images).absolute(), limit, seed, upscale, max_bad, exif)
    config, rounds = _begin(source, Wish(mode))
    store = StatisticsFolder(Path(folder), config, rounds.run.checkpoint)
    store.make()
    states = States()
    while not rounds.complete:
        task = _next(source, rounds, shard)
        whole = store.joined(task.round)
        if whole is None:
            if not store.has(task.round, shard, rounds.run):
                tell(f"round {task.round + 1} of {rounds.needed}, shard {shard}")
                gather(task, progress, states).save(store.path(task.round, shard))
            if task.round + 1 == rounds.needed:
                break  # --merge reads the last round
            whole = _awaited(store, task.round, wait_s, tell)
            if whole is None:
                return Waiting(task.round + 1, rounds.needed, store.missing(task.round))
        rounds.add(whole)
    return None


@checks_keywords()
def merge_shards(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    mode: Mode | None = None,
    buckets: int | None = None,
    cost: Cost = "macs",
    budget_macs: float | None = None,
    budget_ms: float | None = None,
    threads: int | None = None,
    pick: int | None = None,
    scale: float | None = None,
    min_agreement: float | None = None,
    allow_worse: bool = False,
    max_bad: int = 0,
    tell: Tell = lambda stage: None,
    progress: Progress = lambda share: None,
) -> Calibrated:
    """Join the statistics of all shards and return the plan that a single process would have made.

    The keywords are those of `calibrate`. Raises PlanError where a shard is missing.

    >>> md.merge_shards("checkpoint", "stats", buckets=3)
    """
    checkpoint = Path(checkpoint)
    wish = Wish(mode, buckets, cost, budget_macs, budget_ms, threads, pick, scale, min_agreement, allow_worse)
    config, sha256 = load_config(checkpoint), fingerprint(checkpoint)
    store = StatisticsFolder(Path(folder), config, sha256)
    first = _joined(store, 0)
    if sha256 != first.run.checkpoint:
        raise PlanError(f"{folder} was gathered for another checkpoint than {checkpoint} (sha256 differs)")
    modes = [wish.mode] if wish.mode else ["threshold", "topk"]
    if first.run.mode not in (wanted := [mode_of(config, mode) for mode in modes]):
        raise PlanError(f"{folder}: got --mode {wanted[0]}, expected --mode {first.run.mode}")
    rounds = Rounds(config, first.run, max_bad)
    rounds.add(first)
    while not rounds.complete:
        rounds.add(_joined(store, len(rounds.done)))
    if problems := problems_between(rounds.done, config):
        raise PlanError(
            f"{folder}: rounds contradict each other; run the shards again with an empty --stats folder:\n"
            f"{listed(problems)}"
        )
    return make_plan(checkpoint, config, rounds, wish, tell, progress)


def make_plan(
    checkpoint: Path, config: Config, rounds: Rounds, wish: Wish, tell: Tell, progress: Progress
) -> Calibrated:
    """Return the plan that the statistics of all rounds and the requirements lead to."""
    last, thresholds = rounds.last, rounds.thresholds
    costs: Costs = MacCost(config)
    if wish.measured:
        from morvit_deploy.planning.schedule_costs import measure_costs

        tell("measuring graphs of several sizes")
        own = thresholds[last.run.scales.index(OWN)] if last.run.mode == "threshold" else None
        costs = measure_costs(checkpoint, own, threads=wish.threads, progress=progress)
    tell("fitting buckets")
    points = points_of(config, last, thresholds, costs, wish.buckets)
    floor = Floor.on(last.images, last.trained_top1, wish.min_agreement)
    chosen = choose(points, floor, wish.asked(last.run.mode))
    recommended = recommend(points, floor)
    kept = Kept(last.images, chosen.agreement, chosen.top1, last.trained_top1)
    remedy = "Give more images" if recommended is None else f"Recommended instead: {named(recommended)}"
    let_through = ruin_of(kept, allow_worse=wish.allow_worse, remedy=remedy)
    everyone = np.full((1, config.num_steps), config.num_patches)
    return Calibrated(
        plan=draft_plan(config, last, chosen, "measured" if wish.measured else "macs"),
        chosen=chosen,
        points=points,
        unit=costs.unit,
        dense=float(costs.of(everyone, chosen.thresholds)[0]),
        trained_top1=last.trained_top1,
        bad=last.bad,
        remarks=[*remarks_on(config, last, chosen), *let_through],
        floor=floor,
        recommended=recommended,
    )


def mode_of(config: Config, mode: str) -> str:
    """Return the mode if the routing supports it, or its own; PlanError if there is nothing to calibrate."""
    if reason := config.record.why_one_bucket:
        raise PlanError(f"routing {config.routing!r}: {reason}; export the checkpoint without --plan")
    if config.capacity is not None and not routed(config):
        raise PlanError(
            f"capacity {list(config.capacity)}: no token leaves, so there is nothing to calibrate"
        )
    return mode if mode in config.record.modes else config.record.own_mode


def _begin(source: Source, wish: Wish) -> tuple[Config, Rounds]:
    """Return the configuration and the rounds, none of them done."""
    config = load_config(source.checkpoint)
    mode = mode_of(config, wish.mode or "threshold")  # which counts top-k too
    return config, Rounds(config, source.run(mode, scales_of(config, mode)), source.max_bad)


def _next(source: Source, rounds: Rounds, shard: Shard = WHOLE) -> Task:
    """Return the task of the next round."""
    return Task(source, rounds.run, len(rounds.done), rounds.thresholds, shard)


def _joined(store: StatisticsFolder, round: int) -> Statistics:
    whole = store.joined(round)
    if whole is None:
        missing = store.missing(round)
        what = f"shards {shard_names(missing)} are missing" if missing else "no shard has run"
        raise PlanError(
            f"{store.folder}: round {round + 1} is not complete: {what}; run `morvit-deploy calibrate --shard i/n "
            "--stats` with this folder"
        )
    return whole


def _awaited(store: StatisticsFolder, round: int, wait_s: float, tell: Tell) -> Statistics | None:
    """Wait for all shards of a round; returns None after `wait_s` seconds."""
    until = time.monotonic() + wait_s
    while (whole := store.joined(round)) is None and time.monotonic() < until:
        tell(f"round {round + 1}: waiting for shards {shard_names(store.missing(round))}")
        time.sleep(POLL_S)
    return whole
