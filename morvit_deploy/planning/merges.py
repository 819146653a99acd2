"""From a plain ViT and images to a merge schedule within a budget of MACs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.images import open_images
from morvit_deploy.calibration.merging.evaluating import Evaluation
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
from morvit_deploy.model.checkpoint import load_with_fingerprint
from morvit_deploy.model.merges.schedules import (
    MergeSchedule,
    check_plain,
    described,
    earliest,
)
from morvit_deploy.model.plan import own_plan
from morvit_deploy.planning.calibrated import is_plan_file
from morvit_deploy.report import BAR, Report, Shown, Table, count, share

DEFAULT_LIMIT = 256  # images
WIDTH = 20  # characters of the longest bar


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
        chosen = self.chosen
        return (
            f"merges {json.dumps(list(chosen.schedule.merges))}"
            f"{' with proportional attention' if chosen.schedule.proportional else ''}: {count(chosen.macs)}MACs, "
            f"{self.unmerged / chosen.macs:.2f} × fewer than the unmerged ViT; {share(chosen.agreement)} of "
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
    budget_macs: float | str,
    *,
    limit: int | None = None,
    seed: int = 0,
    upscale: bool = False,
    exif: bool = False,
    tries: int = TRIES,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> MergeCalibrated:
    """Find the merges of a plain ViT within a budget that change its results least on a folder of images.

    `budget_macs` are the MACs of an image, or a share of the unmerged ViT's, as in "0.6x". Schedules that merge as
    many tokens at each layer, more at early ones, or all as early as possible are tried, with and without
    proportional attention. From the best of them, up to `tries` more move merges between layers. At most `limit`
    images are used (default: 256), a choice seeded by `seed`. `tell` is called with each stage, `progress` with the
    share of it that is done.

    Raises PlanError, ConfigError, CheckpointError or ImageError.

    >>> found = md.calibrate_merges("vit", "photos", "0.6x")
    >>> found.save("merges.json")
    >>> md.export("vit", "build/merged", merge="merges.json")
    """
    if tries < 0:
        raise PlanError(f"tries: got {tries}, expected 0 or more")
    tell("loading the checkpoint")
    model, sha256 = load_with_fingerprint(checkpoint)
    config = model.config
    check_plain(config)
    unmerged = own_plan(config).buckets[0].macs
    budget = budget_of(budget_macs, unmerged, least_macs(config, earliest(config)))
    folder = open_images(images, config, limit=limit or DEFAULT_LIMIT, seed=seed, upscale=upscale, exif=exif)
    tell(f"running the unmerged ViT on {len(folder)} images")
    runs = _Counted(
        Evaluation(model, folder.all(), [entry.label for entry in folder.entries]),
        2 * len(FAMILIES) + len(SHARES) + tries,
        progress,
    )
    tell("trying families of schedules")
    found = families(config, budget, runs)
    start = best_of(found)
    tell("measuring the curve")
    points = [*found, *curve(config, start, unmerged, runs)]
    tell("moving merges between layers")
    chosen = searched(config, start, budget, runs, tries)
    distinct = {(p.schedule.merges, p.schedule.proportional): p for p in reversed([start, chosen, *points])}
    result = MergeCalibrated(
        chosen.schedule,
        chosen,
        tuple(distinct.values()),
        unmerged,
        runs.evaluation.top1_of(runs.evaluation.logits),
        budget,
        len(folder),
    )
    update = {"checkpoint": sha256, "calibration": result.as_dict()}
    return replace(result, schedule=chosen.schedule.model_copy(update=update))


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
