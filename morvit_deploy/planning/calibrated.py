"""What a calibration returns: the plan, the points that it was chosen from, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from morvit_deploy.calibration.adaptivity.rule import Adaptivity
from morvit_deploy.calibration.buckets.choice import cheapest_first, is_dominated
from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.errors import OutputError
from morvit_deploy.files import check_files, is_ours, is_own_png, no_file, write_together
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.answers.accuracy import Floor
from morvit_deploy.model.plan import Plan
from morvit_deploy.report import Report, Shown, count


class PlanFiles(NamedTuple):
    """The files of a calibration, side by side."""

    plan: Path
    pareto: Path  # its Pareto front as numbers
    picture: Path  # and as a picture


@dataclass(frozen=True)
class Calibrated(Shown):
    """A plan, the points that it was chosen from, and the one that is recommended.

    `rows` are the points in the order of the table and of `pick`. `chosen` is `recommended` unless a mode, a budget,
    a row or a scale was asked for. `recommended` is None if no point keeps the floor.
    """

    plan: Plan
    chosen: Point
    points: list[Point]
    unit: str  # of the points' expected cost: "MACs" or "ms"
    dense: float  # cost of every token in every step
    trained_top1: float | None
    bad: list[tuple[str, str]]
    remarks: list[str]
    floor: Floor  # the accuracy that a point should keep
    recommended: Point | None

    def __repr__(self) -> str:
        cost = self.chosen.expected
        shown = f"{count(cost)}MACs" if self.unit == "MACs" else f"{cost:.3g} ms"
        worth = f"agreement {self.chosen.agreement:.1%}"
        return f"Calibrated({self.plan!r}, expected {shown}, {self.dense / cost:.2f}× cheaper than dense, {worth})"

    @property
    def rows(self) -> list[Point]:
        """The points, cheapest first: `pick` counts them from 1."""
        return cheapest_first(self.points)

    @property
    def adaptivity_pays(self) -> bool | None:
        """Whether the recommended plan chooses a bucket for each image; None if none is recommended or was tried."""
        from morvit_deploy.planning.conclusion import adaptivity_pays

        return adaptivity_pays(self)

    @property
    def adaptivity(self) -> Adaptivity:
        """How much accuracy depends on depth, how much token counts vary, and what follows."""
        from morvit_deploy.planning.adaptivity import adaptivity_of

        return adaptivity_of(self.points, self.floor, self.unit, self.dense)

    @property
    def conclusion(self) -> str:
        """The recommendation, whether adaptivity pays, and whether it can, in a sentence each."""
        from morvit_deploy.planning.conclusion import conclusion

        return conclusion(self)

    @checks_keywords()
    def save(self, path: str | Path, *, force: bool = False) -> PlanFiles:
        """Write the plan to `path`, and beside it the Pareto front as JSON and as a picture, all or none.

        Raises OutputError where a file exists, unless `force`, or cannot be written.

        >>> found.save("plan.json", force=True)
        """
        files = plan_files(Path(path))
        check_files(files, force=force, replaces=is_plan_file)
        write_files(self, files, force=force)
        return files

    def report(self) -> Report:
        """The plan, its buckets and the front."""
        from morvit_deploy.planning.front import calibration_report

        return calibration_report(self)

    def as_dict(self) -> dict[str, Any]:
        """The Pareto file and `calibrate --json`."""
        return {
            "format": "morvit-pareto/1",
            "unit": self.unit,
            "dense": self.dense,
            "trained_top1": self.trained_top1,
            "conclusion": self.conclusion,
            "floor": self.floor.as_dict(),
            "recommended": None if self.recommended is None else self._named(self.recommended),
            "adaptivity_pays": self.adaptivity_pays,
            "adaptivity": self.adaptivity.as_dict(),
            "chosen": self._named(self.chosen),
            "points": [self._judged(point) for point in self.points],
            "unreadable": [reason for _, reason in self.bad],
            "remarks": self.remarks,
        }

    def _named(self, point: Point) -> dict[str, Any]:
        return {"kind": point.kind, "scale": point.scale, "row": self.rows.index(point) + 1}

    def _judged(self, point: Point) -> dict[str, Any]:
        return point.as_dict() | {
            "row": self.rows.index(point) + 1,
            "dominated": is_dominated(point, self.points),
            "keeps": self.floor.keeps(point.agreement, point.top1),
        }


def plan_files(out: Path) -> PlanFiles:
    """The plan's file, and beside it the Pareto front as numbers and as a picture."""
    if not out.name:
        raise OutputError(f"-o {out} is a folder, expected a file name")
    return PlanFiles(out, out.with_name(f"{out.stem}.pareto.json"), out.with_name(f"{out.stem}.pareto.png"))


def is_plan_file(path: Path) -> bool:
    """Is it a file that a calibration wrote?"""
    if path.suffix == ".png":
        return is_own_png(path)
    if path.name.endswith(".pareto.json"):
        return is_ours(path, "morvit-pareto/")
    return is_ours(path, "morvit-plan/") or is_ours(path, "morvit-merges/")  # of a plain ViT


def write_files(calibrated: Calibrated, files: PlanFiles, *, force: bool) -> None:
    """All or nothing; the plan, which names the rest, is written last."""
    from morvit_deploy.planning.front import draw  # loads matplotlib

    numbers = json.dumps(calibrated.as_dict(), indent=1, allow_nan=False) + "\n"
    contents = {
        files.pareto: numbers.encode(),
        files.picture: draw(calibrated),
        files.plan: calibrated.plan.to_json().encode(),
    }
    write_together(contents, replaces=is_plan_file if force else no_file)
