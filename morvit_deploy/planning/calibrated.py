"""What a calibration returns: the plan, the points that it was chosen from, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.errors import OutputError
from morvit_deploy.files import check_files, is_ours, is_own_png, no_file, write_together
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.model.plan import Plan
from morvit_deploy.report import Report, Shown, count


class PlanFiles(NamedTuple):
    """The files of a calibration, side by side."""

    plan: Path
    pareto: Path  # its Pareto front as numbers
    picture: Path  # and as a picture


@dataclass(frozen=True)
class Calibrated(Shown):
    """A plan, and the points that it was chosen from: the Pareto front of cost and top-1."""

    plan: Plan
    chosen: Point
    points: list[Point]
    unit: str  # of the points' expected cost: "MACs" or "ms"
    dense: float  # cost of every token in every step
    trained_top1: float | None
    bad: list[tuple[str, str]]
    remarks: list[str]

    def __repr__(self) -> str:
        cost = self.chosen.expected
        shown = f"{count(cost)}MACs" if self.unit == "MACs" else f"{cost:.3g} ms"
        worth = f"agreement {self.chosen.agreement:.1%}"
        return f"Calibrated({self.plan!r}, expected {shown}, {self.dense / cost:.2f}× cheaper than dense, {worth})"

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
            "chosen": {"kind": self.chosen.kind, "scale": self.chosen.scale},
            "points": [point.as_dict() for point in self.points],
            "unreadable": [reason for _, reason in self.bad],
            "remarks": self.remarks,
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
    return is_ours(path, "morvit-pareto/" if path.name.endswith(".pareto.json") else "morvit-plan/")


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
