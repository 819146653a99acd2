"""All formats of one checkpoint in one table: targets and precisions, with size, accuracy, agreement and time.

Each format is exported and verified. Those that this machine's CPU runs are measured in turn, in one run; for the
others the table says where they run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from morvit_deploy.bundle.images import open_images
from morvit_deploy.errors import ConfigError, MorvitError
from morvit_deploy.exporters.targets import Target, find_target, open_session
from morvit_deploy.files import temporary
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.compare.results.rows import FORMAT
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.views import conditions_table
from morvit_deploy.model.choices import PRECISIONS
from morvit_deploy.model.config import load_config
from morvit_deploy.report import Report, Shown, Table, share, size, three_digits

HERE = "cpu"  # the device of `bench` that is this machine
LIMIT = 64  # images that a format is compared on
_UNKNOWN = "–"

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Made:
    """One format; without a size it could not be made, and `remark` says why."""

    target: str
    precision: str
    file_bytes: int | None = None
    agreement: float | None = None  # top-1 agreement with the checkpoint, 0 to 1
    max_abs: float | None = None  # largest |Δlogit| to the float64 reference
    top1: float | None = None  # of labeled images, 0 to 1
    measured: MeasuredBundle | None = None
    remark: str = ""

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.target} {self.precision}"

    def as_dict(self) -> dict[str, Any]:
        """For the JSON."""
        names = ("target", "precision", "file_bytes", "agreement", "max_abs", "top1", "remark")
        measured = None if self.measured is None else self.measured.as_dict()
        return {**{name: getattr(self, name) for name in names}, "measured": measured}


@dataclass(frozen=True)
class Formats(Shown):
    """All formats of one checkpoint, and the run that measured some of them."""

    checkpoint: str
    made: tuple[Made, ...]
    timed: BenchResult | None  # None where no format runs here

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of the measurement."""
        return () if self.timed is None else self.timed.warnings

    def report(self) -> Report:
        """A row for each format, and the conditions."""
        parts = [formats_table(self)]
        if self.timed is not None:
            parts.append(conditions_table(HERE, self.timed.conditions, self.timed.measured))
        return Report(f"Formats of {self.checkpoint}", list(parts), _sentence(self))

    def as_dict(self) -> dict[str, Any]:
        """What `compare --targets --json` prints."""
        return {
            "format": FORMAT,
            "checkpoint": self.checkpoint,
            "formats": [one.as_dict() for one in self.made],
            "conditions": None if self.timed is None else self.timed.conditions,
            "warnings": list(self.warnings),
        }


def compare_formats(
    checkpoint: str | Path,
    *,
    targets: Sequence[str],
    precisions: Sequence[str],
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    timing: Mapping[str, Any] | None = None,
    tell: Tell = lambda stage: None,
) -> Formats:
    """Export a checkpoint to every target in every precision, verify it, and measure what runs here.

    `timing` are keywords of `bench`: threads, runs, blocks, warmup, starts. A format that cannot be made is a row
    with the reason. Raises TargetError and ConfigError for names that there are not, and for the checkpoint what
    `export` raises.
    """
    known = [find_target(name) for name in targets]
    for precision in precisions:
        if precision not in PRECISIONS:
            raise ConfigError(
                f"precisions: got {precision!r}, expected some of {', '.join(PRECISIONS)}"
                f"{did_you_mean(precision, PRECISIONS)}"
            )
    load_config(Path(checkpoint))  # raises its own errors
    pictures = {"images": images, "upscale": upscale, "exif": exif}
    with temporary("formats") as scratch:
        made = []
        for target in known:
            for precision in precisions:
                tell(f"exporting {target.name} {precision}")
                made.append(_made(Path(checkpoint), target, precision, scratch, pictures))
        folders = {one.name: scratch / _folder(one) for one in made if one.file_bytes and _runs_here(one)}
        timed = None
        if folders:
            keywords: dict[str, Any] = {**pictures, **(timing or {})}
            timed = bench([*folders.values()], device="cpu", tell=tell, **keywords)
            measured = dict(zip(folders, timed.measured, strict=True))
            made = [replace(one, measured=measured.get(one.name)) for one in made]
    return Formats(str(checkpoint), tuple(made), timed)


def _made(
    checkpoint: Path, target: Target, precision: str, scratch: Path, pictures: Mapping[str, Any]
) -> Made:
    """Export, verify and judge one format."""
    from morvit_deploy.exporters.api import export

    asked: Any = precision  # one of PRECISIONS
    if precision not in target.precisions:
        return Made(target.name, precision, remark=target.why_not_in(precision))
    blank = Made(target.name, precision)
    try:
        done = export(checkpoint, scratch / _folder(blank), target=target.name, precision=asked, **pictures)
        top1 = _top1(done.folder, pictures)
    except MorvitError as error:
        return replace(blank, remark=str(error))
    gap = done.verification.conversion_gap
    elsewhere = "" if _runs_here(blank) else f"not run here: {target.runs_on}"
    return replace(
        blank,
        file_bytes=sum(file.bytes for file in done.manifest.files),
        agreement=gap.top1_agreement,
        max_abs=gap.max_abs,
        top1=top1,
        remark=elsewhere,
    )


def _folder(made: Made) -> str:
    return f"{made.target}-{made.precision}"


def _runs_here(made: Made) -> bool:
    return HERE in find_target(made.target).devices


def _top1(folder: Path, pictures: Mapping[str, Any]) -> float | None:
    """Share of at most LIMIT labeled images whose class is right; None without labels."""
    if pictures["images"] is None:
        return None
    with open_session(folder) as session:
        found = open_images(
            pictures["images"], session.manifest.config, limit=LIMIT, upscale=pictures["upscale"],
            exif=pictures["exif"],
        )  # fmt: skip  # two lines read better than seven
        if found.labels is None:
            return None
        classes = session.logits(found.all()).argmax(axis=1)
    return float(np.mean(classes == np.asarray(found.labels)))


def formats_table(result: Formats) -> Table:
    """Size, accuracy, agreement and time; what was not made or not run says why."""
    rows = [
        (
            one.target,
            one.precision,
            _UNKNOWN if one.file_bytes is None else size(one.file_bytes),
            _UNKNOWN if one.top1 is None else share(one.top1),
            _UNKNOWN if one.agreement is None else share(one.agreement),
            _UNKNOWN if one.max_abs is None else f"{one.max_abs:.1e}",
            _UNKNOWN if one.measured is None else three_digits(one.measured.latency_ms["p50"]),
            one.remark,
        )
        for one in result.made
    ]
    columns = ("target", "precision", "files", "top-1", "agreement", "max |Δlogit|", "p50 ms", "remark")
    caption = (
        "agreement of top-1 and largest difference to the checkpoint's float64 reference; times at batch 1 on this "
        "machine's CPU, in turn"
    )
    return Table("Formats", columns, rows, numeric=(2, 3, 4, 5, 6), caption=caption)


def _sentence(result: Formats) -> str:
    """How many were made, and the fastest and the smallest of them."""
    good = [one for one in result.made if one.file_bytes is not None]
    text = f"{len(good)} of {len(result.made)} formats were made and verified"
    timed = [(one.measured.latency_ms["p50"], one.name) for one in good if one.measured is not None]
    if timed:
        ms, name = min(timed)
        text += f"; {name} is the fastest here ({three_digits(ms)} ms)"
    if good:
        least = min(good, key=lambda one: one.file_bytes or 0)
        text += f"; {least.name} is the smallest ({size(least.file_bytes or 0)})"
    return f"{text}."
