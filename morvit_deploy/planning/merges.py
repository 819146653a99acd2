"""From a plain ViT and images to a merge schedule within a budget of MACs or milliseconds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.images import open_images
from morvit_deploy.calibration.merging.evaluating import Evaluation
from morvit_deploy.calibration.merging.latency import Latency, MergeLatencies
from morvit_deploy.calibration.merging.points import MergePoint, budget_of, least_macs
from morvit_deploy.calibration.merging.search import (
    FAMILIES,
    SHARES,
    TRIES,
    best_of,
    curve,
    families,
    searched,
)
from morvit_deploy.errors import PlanError
from morvit_deploy.files import check_files, no_file, write_together
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.model.checkpoint import load_with_fingerprint
from morvit_deploy.model.config import Config
from morvit_deploy.model.merges.schedules import (
    MergeSchedule,
    check_plain,
    described,
    earliest,
)
from morvit_deploy.model.plan import own_plan
from morvit_deploy.planning.calibrated import is_plan_file
from morvit_deploy.planning.merge_latency import measure_latency
from morvit_deploy.report import BAR, Report, Shown, Table, count, share

DEFAULT_LIMIT = 256  # images
WIDTH = 20  # characters of the longest bar
ROUNDS = 4  # searches for milliseconds, each within fewer MACs than the one before


@dataclass(frozen=True)
class MergeTiming:
    """Median milliseconds of an image on this machine, by ONNX Runtime in fp32."""

    budget: float
    chosen: float
    unmerged: float

    def __str__(self) -> str:
        return f"{self.chosen:.3g} ms here, where the unmerged ViT takes {self.unmerged:.3g} ms"


@dataclass(frozen=True)
class MergeCalibrated(Shown):
    """The schedule that was found, and what others cost and change."""

    schedule: MergeSchedule
    chosen: MergePoint
    points: tuple[MergePoint, ...]  # the chosen one among them
    unmerged: int  # MACs of the ViT without merges
    unmerged_top1: float | None  # with labels
    budget: float  # MACs
    images: int
    timing: MergeTiming | None = None  # with a budget of milliseconds

    def __repr__(self) -> str:
        return (
            f"MergeCalibrated({described(self.schedule)}, {count(self.chosen.macs)}MACs, "
            f"{self.unmerged / self.chosen.macs:.2f}× fewer, agreement {self.chosen.agreement:.1%})"
        )

    @property
    def rows(self) -> list[MergePoint]:
        """The points, cheapest first."""
        return sorted(self.points, key=lambda point: (point.macs, point.divergence))

    @property
    def conclusion(self) -> str:
        """The result in a sentence."""
        chosen, timed = self.chosen, f", {self.timing}" if self.timing else ""
        return (
            f"merges {json.dumps(list(chosen.schedule.merges))}"
            f"{' with proportional attention' if chosen.schedule.proportional else ''}: {count(chosen.macs)}MACs, "
            f"{self.unmerged / chosen.macs:.2f} × fewer than the unmerged ViT{timed}; {share(chosen.agreement)} of "
            f"{self.images} images keep their class"
        )

    def report(self) -> Report:
        """The curve: what each schedule costs and changes."""
        return Report("Merge schedule", [_table(self)], self.conclusion)

    def as_dict(self) -> dict[str, Any]:
        """For `calibrate --json`, and the record in the file."""
        return {
            "unmerged_macs": self.unmerged,
            "unmerged_top1": self.unmerged_top1,
            "budget_macs": self.budget,
            **({f"{name}_ms": ms for name, ms in vars(self.timing).items()} if self.timing else {}),
            "images": self.images,
            "chosen": self.chosen.as_dict(),
            "points": [point.as_dict() for point in self.rows],
        }

    @checks_keywords()
    def save(self, path: str | Path, *, force: bool = False) -> Path:
        """Write the schedule, which `export --merge` takes; OutputError where a file exists, unless `force`.

        >>> found.save("merges.json")
        """
        path = Path(path)
        check_files([path], force=force, replaces=is_schedule_file)
        write_schedule(self, path, force=force)
        return path


@checks_keywords()
def calibrate_merges(
    checkpoint: str | Path,
    images: str | Path,
    budget_macs: float | str | None = None,
    *,
    budget_ms: float | None = None,
    threads: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    upscale: bool = False,
    exif: bool = False,
    tries: int = TRIES,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> MergeCalibrated:
    """Find the merges of a plain ViT within a budget that change its results least on a folder of images.

    `budget_macs` are the MACs of an image, or a share of the unmerged ViT's, as in "0.6x"; `budget_ms` its
    milliseconds on this machine, by ONNX Runtime in fp32 with `threads` (default: all cores). Schedules that merge as
    many tokens at each layer, more at early ones, or all as early as possible are tried, with and without
    proportional attention. From the best of them, up to `tries` more move merges between layers. At most `limit`
    images are used (default: 256), a choice seeded by `seed`. `tell` is called with each stage, `progress` with the
    share of it that is done.

    Raises PlanError, ConfigError, CheckpointError or ImageError.

    >>> found = md.calibrate_merges("vit", "photos", "0.6x")  # or budget_ms=20
    >>> found.save("merges.json")
    >>> md.export("vit", "build/merged", merge="merges.json")
    """
    if tries < 0:
        raise PlanError(f"tries: got {tries}, expected 0 or more")
    _check_budget(budget_macs, budget_ms, threads)
    tell("loading the checkpoint")
    model, sha256 = load_with_fingerprint(checkpoint)
    config = model.config
    check_plain(config)
    unmerged = own_plan(config).buckets[0].macs
    latency = partial(measure_latency, model, threads=threads)
    known = None
    if budget_macs is not None:
        budget = budget_of(budget_macs, unmerged, least_macs(config, earliest(config)))
        budgets = dict.fromkeys(FAMILIES, budget)
    if budget_ms is not None:
        tell("measuring schedules on this machine")
        known = MergeLatencies.measured(config, unmerged, partial(latency, progress=progress))
        budgets = known.budgets(budget_ms)
    folder = open_images(images, config, limit=limit or DEFAULT_LIMIT, seed=seed, upscale=upscale, exif=exif)
    tell(f"running the unmerged ViT on {len(folder)} images")
    evaluation = Evaluation(model, folder.all(), [entry.label for entry in folder.entries])
    search = _Search(config, unmerged, _Counted(evaluation, _most(tries), progress), tries, tell)
    found, timing = search.within(budgets), None
    if known is not None and budget_ms is not None:
        found, timing = _in_time(found, budgets, budget_ms, known, search, latency)
    result = MergeCalibrated(
        found.chosen.schedule,
        found.chosen,
        found.points,
        unmerged,
        evaluation.top1_of(evaluation.logits),
        found.budget,
        len(folder),
        timing,
    )
    update = {"checkpoint": sha256, "calibration": result.as_dict()}
    return replace(result, schedule=found.chosen.schedule.model_copy(update=update))


def _check_budget(budget_macs: float | str | None, budget_ms: float | None, threads: int | None) -> None:
    if (budget_macs is None) == (budget_ms is None):
        raise PlanError(
            "calibrate_merges: give one of budget_macs and budget_ms, the most that an image may cost"
        )
    if budget_ms is None and threads is not None:
        raise PlanError(
            f"threads: got {threads} with budget_macs, which is not measured; leave it out, or give budget_ms"
        )
    if budget_ms is not None:
        checked_threads(threads)
        if not 0 < budget_ms < math.inf:
            raise PlanError(f"budget_ms: got {budget_ms}, expected a number above 0")


@dataclass(frozen=True)
class _Found:
    """The schedule that a search found, among the others that it measured, and its budget of MACs."""

    chosen: MergePoint
    points: tuple[MergePoint, ...]
    budget: float


@dataclass(frozen=True)
class _Search:
    """Families of schedules, the curve of the best one, then moves between layers."""

    config: Config
    unmerged: int
    runs: _Counted
    tries: int
    tell: Callable[[str], None]

    def within(self, budgets: Mapping[str, float]) -> _Found:
        """Search within each family's budget of MACs."""
        self.tell("trying families of schedules")
        found = families(self.config, budgets, self.runs)
        start = best_of(found)
        budget = budgets[start.kind]
        self.tell("measuring the curve")
        points = [*found, *curve(self.config, start, self.unmerged, self.runs)]
        self.tell("moving merges between layers")
        chosen = searched(self.config, start, budget, self.runs, self.tries)
        distinct = {
            (p.schedule.merges, p.schedule.proportional): p for p in reversed([start, chosen, *points])
        }
        return _Found(chosen, tuple(distinct.values()), budget)


def _in_time(
    found: _Found,
    budgets: Mapping[str, float],
    budget_ms: float,
    known: MergeLatencies,
    search: _Search,
    latency: Latency,
) -> tuple[_Found, MergeTiming]:
    """Measure the schedule that was found, and search within fewer MACs as long as it takes too long."""
    for _ in range(ROUNDS):
        search.tell("measuring the schedule that was found")
        (ms,) = latency([found.chosen.schedule])
        if ms <= budget_ms:
            return found, MergeTiming(budget_ms, ms, known.unmerged_ms)
        less = budget_ms / ms * found.chosen.macs / found.budget
        budgets = known.possible({kind: less * macs for kind, macs in budgets.items()})
        if not budgets:
            break
        found = search.within(budgets)
    raise PlanError(
        f"budget_ms: no schedule was found that takes {budget_ms:g} ms; the last one took {ms:.3g} ms, more than "
        "schedules of its kind before. Times vary on a busy machine: repeat it on an idle one, or give more"
    )


def _most(tries: int) -> int:
    """How many schedules a search runs at most."""
    return 2 * len(FAMILIES) + len(SHARES) + tries


class _Counted:
    """Measures schedules, and reports how many of those to come are done."""

    def __init__(self, evaluation: Evaluation, most: int, progress: Callable[[float], None]) -> None:
        self.evaluation, self.most, self.progress = evaluation, most, progress

    def measure(self, kind: str, schedule: MergeSchedule) -> MergePoint:
        point = self.evaluation.measure(kind, schedule)
        self.progress(min(1.0, self.evaluation.count / self.most))
        return point


def write_schedule(found: MergeCalibrated, path: Path, *, force: bool) -> None:
    """Write the file of a schedule, whole or not at all."""
    replaces = is_schedule_file if force else no_file
    write_together({path: found.schedule.to_json().encode()}, replaces=replaces)


def is_schedule_file(path: Path) -> bool:
    """Is it a file that a calibration wrote?"""
    return is_plan_file(path)  # a plan, too: `calibrate` of another checkpoint wrote it to its usual place


def _table(found: MergeCalibrated) -> Table:
    most = max(point.divergence for point in found.points) or 1.0
    labeled = found.unmerged_top1 is not None
    rows = [_row(found, point, most, labeled) for point in found.rows]
    columns = (
        "",
        "schedule",
        "MACs",
        "fewer",
        "same class",
        *(["top-1"] if labeled else []),
        "change",
        "nats",
    )
    last = len(columns) - 1
    top1 = (
        f"; the unmerged ViT has top-1 {share(found.unmerged_top1)}"
        if found.unmerged_top1 is not None
        else ""
    )
    caption = (
        f"→ is the schedule found within {count(found.budget)}MACs of {count(found.unmerged)}; {found.images} images"
        f"{top1}. Nats: mean divergence of the probabilities from the unmerged ViT's"
    )
    return Table("Cost and change by schedule", columns, rows, (2, 3, 4, *range(5, last - 1), last), caption)


def _row(found: MergeCalibrated, point: MergePoint, most: float, labeled: bool) -> tuple[str, ...]:
    merges = point.schedule.merges
    bar = BAR * max(1, round(WIDTH * point.divergence / most))
    top1 = [share(point.top1) if point.top1 is not None else "–"] if labeled else []
    weighted = ", proportional" if point.schedule.proportional else ""
    return (
        "→" if point is found.chosen else "",
        f"{point.kind}, {sum(merges)} merges{weighted}",
        count(point.macs),
        f"{found.unmerged / point.macs:.2f} ×",
        share(point.agreement),
        *top1,
        bar,
        f"{point.divergence:.2g}",
    )
