"""Calibration of a plan: rounds of statistics, thresholds, buckets, and the choice on the Pareto front."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from morvit_deploy.calibration.buckets.costs import Costs, MacCost
from morvit_deploy.calibration.buckets.plan import draft_plan, remarks_on
from morvit_deploy.calibration.buckets.points import choose, points_of
from morvit_deploy.calibration.routing.checks import problems_between
from morvit_deploy.calibration.routing.cluster import Cluster
from morvit_deploy.calibration.routing.gathering import Source, Task, gather
from morvit_deploy.calibration.routing.sequence import OWN, Rounds, routed, scales_of
from morvit_deploy.calibration.routing.shards import StatisticsFolder
from morvit_deploy.calibration.routing.statistics import WHOLE, Shard, Statistics, shard_names
from morvit_deploy.errors import PlanError, listed
from morvit_deploy.keywords import checks_keywords, did_you_mean
from morvit_deploy.model.checkpoint import fingerprint
from morvit_deploy.model.config import Config, load_config
from morvit_deploy.planning.calibrated import Calibrated

__all__ = ["Calibrated", "Waiting", "Wish", "calibrate", "calibrate_shard", "merge_shards"]

POLL_S = 1.0

Tell = Callable[[str], None]
Progress = Callable[[float], None]
Mode = Literal["threshold", "topk"]
Cost = Literal["macs", "measured"]


@dataclass(frozen=True)
class Wish:
    """The requirements for a plan."""

    mode: str = "threshold"  # or "topk"; ignored by routings that support only "depth"
    buckets: int | None = None  # including `full`; None: as many as reduce the cost noticeably
    cost: str = "macs"  # or "measured"
    budget_macs: float | None = None  # expected MACs per image
    budget_ms: float | None = None
    threads: int | None = None  # for measured costs

    def __post_init__(self) -> None:
        for name, allowed in (("mode", ("threshold", "topk")), ("cost", ("macs", "measured"))):
            if getattr(self, name) not in allowed:
                hint = did_you_mean(getattr(self, name), allowed)
                raise PlanError(f"{name}: got {getattr(self, name)!r}, expected {' or '.join(allowed)}{hint}")
        if self.buckets is not None and self.buckets < 1:
            raise PlanError(f"buckets: got {self.buckets}, expected at least 1 (`full`)")
        if self.budget_macs is not None and self.budget_ms is not None:
            raise PlanError("got budget_macs and budget_ms, expected one of them")
        for name in ("budget_macs", "budget_ms"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise PlanError(f"{name}: got {value}, expected a number above 0")

    @property
    def measured(self) -> bool:
        """Whether costs are measured in milliseconds."""
        return self.cost == "measured" or self.budget_ms is not None


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
    mode: Mode = "threshold",
    buckets: int | None = None,
    cost: Cost = "macs",
    budget_macs: float | None = None,
    budget_ms: float | None = None,
    threads: int | None = None,
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
    """Fit thresholds and buckets to a folder of images, in constant memory; returns the plan and its Pareto front.

    `mode` "threshold" makes easy images cheap, "topk" runs the same number of tokens for every image; token_choice
    has a mode of its own. `buckets` counts `full` too (default: as many as gain 2 % each, at most 6). They are fitted
    to MACs or, with `cost` "measured", to milliseconds on this machine with `threads` threads. `budget_macs`
    or `budget_ms` is the most an image may cost on average: the most accurate plan within it is chosen.

    At most `limit` images are used, a choice seeded by `seed`; up to `max_bad` may be unreadable. `ray` is a Ray
    cluster's address, or `local`, and `shards` the number of parts there (default: one for each of its CPUs); see
    `calibrate_shard` for machines without Ray. `tell` is called with each stage, `progress` with the share done.

    Raises PlanError, ImageError, CheckpointError, TargetError.

    >>> found = md.calibrate("checkpoint", "photos", buckets=3, budget_macs=1.2e9)
    >>> found.save("plan.json")
    >>> md.export("checkpoint", "build/adaptive", plan=found.plan)
    """
    wish = Wish(mode, buckets, cost, budget_macs, budget_ms, threads)
    source = Source(Path(checkpoint).absolute(), Path(images).absolute(), limit, seed, upscale, max_bad, exif)
    config, rounds = _begin(source, wish)
    with ExitStack() as stack:
        count = gather
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
    while not rounds.complete:
        task = _next(source, rounds, shard)
        whole = store.joined(task.round)
        if whole is None:
            if not store.has(task.round, shard, rounds.run):
                tell(f"round {task.round + 1} of {rounds.needed}, shard {shard}")
                gather(task, progress).save(store.path(task.round, shard))
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
    mode: Mode = "threshold",
    buckets: int | None = None,
    cost: Cost = "macs",
    budget_macs: float | None = None,
    budget_ms: float | None = None,
    threads: int | None = None,
    max_bad: int = 0,
    tell: Tell = lambda stage: None,
    progress: Progress = lambda share: None,
) -> Calibrated:
    """Join the statistics of all shards and return the plan that a single process would have made.

    The keywords are those of `calibrate`. Raises PlanError where a shard is missing.

    >>> md.merge_shards("checkpoint", "stats", buckets=3)
    """
    checkpoint, wish = Path(checkpoint), Wish(mode, buckets, cost, budget_macs, budget_ms, threads)
    config, sha256 = load_config(checkpoint), fingerprint(checkpoint)
    store = StatisticsFolder(Path(folder), config, sha256)
    first = _joined(store, 0)
    if sha256 != first.run.checkpoint:
        raise PlanError(f"{folder} was gathered for another checkpoint than {checkpoint} (sha256 differs)")
    if (wanted := mode_of(config, wish)) != first.run.mode:
        raise PlanError(f"{folder}: got --mode {wanted}, expected --mode {first.run.mode}")
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
    chosen = choose(points, last.run.mode, wish.budget_ms, wish.budget_macs)
    everyone = np.full((1, config.num_steps), config.num_patches)
    return Calibrated(
        plan=draft_plan(config, last, chosen, "measured" if wish.measured else "macs"),
        chosen=chosen,
        points=points,
        unit=costs.unit,
        dense=float(costs.of(everyone, chosen.thresholds)[0]),
        trained_top1=last.trained_top1,
        bad=last.bad,
        remarks=remarks_on(config, last, chosen),
    )


def mode_of(config: Config, wish: Wish) -> str:
    """Return the required mode if the routing supports it, or its own; PlanError if there is nothing to calibrate."""
    if reason := config.record.why_one_bucket:
        raise PlanError(f"routing {config.routing!r}: {reason}; export the checkpoint without --plan")
    if config.capacity is not None and not routed(config):
        raise PlanError(
            f"capacity {list(config.capacity)}: no token leaves, so there is nothing to calibrate"
        )
    return wish.mode if wish.mode in config.record.modes else config.record.own_mode


def _begin(source: Source, wish: Wish) -> tuple[Config, Rounds]:
    """Return the configuration and the rounds, none of them done."""
    config = load_config(source.checkpoint)
    return config, Rounds(config, source.run(mode_of(config, wish), scales_of(config)), source.max_bad)


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
