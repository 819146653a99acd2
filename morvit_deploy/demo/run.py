"""The demo: scenes first, then the digits models, and a report of all."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from morvit_deploy.demo.digits import ModelRun, run_model, run_package
from morvit_deploy.demo.digits_views import details, digits_pictures, summary_table
from morvit_deploy.demo.examples import DIGIT_IMAGES, DIGITS
from morvit_deploy.demo.scene_picture import draw_scenes
from morvit_deploy.demo.scene_views import objects_table, scene_details, scenes_picture, ways_table
from morvit_deploy.demo.scenes import ScenesRun, run_scenes, time_scenes
from morvit_deploy.files import files_in, new_folder, write_bytes
from morvit_deploy.machine.extras import is_missing
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.views import bench_report
from morvit_deploy.report import Picture, Report, Table

BLOCKS, STARTS = 4, 1  # of the measurement: enough to show the order of the bundles, `bench` takes more
BENCH_PARTS = 2  # of the measurement on a terminal: latency, speed against the naive export
TITLE = "morvit-deploy demo"
RECORD = "demo.json"

Tell = Callable[[str], None]


@dataclass
class Demo:
    """What the demo leaves behind: the folder and its report."""

    folder: Path
    scenes: ScenesRun
    models: list[ModelRun] = field(default_factory=list)
    report: Report = field(default_factory=lambda: Report(TITLE))  # as in report.html
    brief: Report = field(default_factory=lambda: Report(TITLE))  # for a terminal

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "format": "morvit-demo/1",
            "folder": str(self.folder),
            "scenes": self.scenes.as_dict(),
            "models": [one.as_dict() for one in self.models],
        }


def run_demo(
    examples: Path,
    out: Path,
    *,
    force: bool = False,
    quick: bool = False,
    tell: Tell = lambda stage: None,
) -> Demo:
    """Take the scenes and both digits models through every step, and time what they are compared with.

    Raises MorvitError when a step fails, ParityError when a bundle and its model disagree on classes, top-1 or
    buckets; then nothing is left at `out`. `quick` times only as much as shows that it works.
    """
    with new_folder(out, marker=RECORD, force=force, inputs=(examples,)) as folder:
        demo = _run_all(examples, folder, out, tell)
        time_scenes(demo.scenes, folder, tell, quick=quick)
        write_bytes(folder / "scenes.png", draw_scenes(demo.scenes))
        _bench(demo.models[0], examples, folder, tell, quick=quick)
        demo.report.result = demo.brief.result = _result(demo)
        brief = _brief(demo, folder)
        scenes, objects, *digits = brief
        more = [*_measured(demo)[BENCH_PARTS:], *_details(demo)]
        demo.report.parts = [scenes, objects, ways_table(demo.scenes.gain), *digits, *more]
        (folder / "report.html").write_text(demo.report.html(), encoding="utf-8")
        (folder / "report.md").write_text(demo.report.markdown(), encoding="utf-8")
        record = {**demo.as_dict(), "files": files_in(folder)}
        (folder / RECORD).write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    demo.brief.parts = [_moved(part, out) for part in brief]
    return demo


def _run_all(examples: Path, folder: Path, out: Path, tell: Tell) -> Demo:
    """Scenes and the second digits model here, the first in a process of its own: tracing keeps one core busy."""
    pictures = examples / DIGIT_IMAGES
    first, second = (examples / name for name in DIGITS)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        other = pool.submit(_run_first, first, pictures, folder)
        scenes = run_scenes(examples, folder, tell)
        model = run_model(second, pictures, folder, tell)
        tell(f"{first.name}: the same steps, in another process")
        return Demo(out, scenes, [other.result(), model])


def _run_first(checkpoint: Path, pictures: Path, folder: Path) -> ModelRun:
    """The model that is exported to Core ML, too, where coremltools is installed."""
    model = run_model(checkpoint, pictures, folder)
    if not is_missing("coremltools"):
        model.packaged = run_package(checkpoint, pictures, folder)
    return model


def _bench(first: ModelRun, examples: Path, folder: Path, tell: Tell, *, quick: bool) -> None:
    tell("timing against the naive export")
    first.bench = bench(
        [folder / first.name, folder / f"{first.name}-naive", folder / f"{first.name}-adaptive"],
        images=examples / DIGIT_IMAGES,
        blocks=2 if quick else BLOCKS,
        starts=1 if quick else STARTS,
    )


def _result(demo: Demo) -> str:
    """What adaptive routing gains on the scenes, that the bundles are the models, and what that is worth."""
    first = demo.models[0]
    assert first.bench is not None
    verified = demo.scenes.verified and all(one.verification.passed for one in demo.models)
    are = "All bundles are" if verified else "A bundle is NOT"
    speed = f"{first.name} runs {first.bench.ratios[0].median:.2f}× as fast as its naive export"
    return f"{demo.scenes.sentences} {are} verified against the checkpoints; {speed}."


def _brief(demo: Demo, folder: Path) -> list[Table | Picture]:
    """What a terminal shows."""
    return [
        scenes_picture(folder),
        objects_table(demo.scenes),
        summary_table(demo.models),
        *digits_pictures(demo.models, folder),
        *_measured(demo)[:BENCH_PARTS],
    ]


def _measured(demo: Demo) -> list[Table | Picture]:
    assert demo.models[0].bench is not None
    return bench_report(demo.models[0].bench).parts


def _details(demo: Demo) -> list[Table]:
    return [*scene_details(demo.scenes), *(table for one in demo.models for table in details(one))]


def _moved(part: Table | Picture, out: Path) -> Table | Picture:
    """A picture where it is after the folder got its name."""
    return replace(part, path=out / part.path.name) if isinstance(part, Picture) else part
