"""`morvit-deploy bench --device mac|iphone` and `--emit-project`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from morvit_deploy.cli.shared.bench import BenchWords
from morvit_deploy.cli.shared.bench_options import given
from morvit_deploy.cli.shared.console import emit, working
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.errors import ConfigError

if TYPE_CHECKING:
    from morvit_deploy.report import Report


def run_apple(words: BenchWords) -> None:
    """Measure, or write the project; raises typer.Exit when a measurement ended early or a unit failed."""
    words.check_apple()
    if words.apple.emit_project is not None:
        _write(words, words.apple.emit_project)
    else:
        _measure(words)


def _measure(words: BenchWords) -> None:
    from morvit_deploy.measuring.apple.bench import bench_apple, check_system
    from morvit_deploy.measuring.apple.dispatching import chosen_units
    from morvit_deploy.measuring.apple.running import Wish, exit_status
    from morvit_deploy.measuring.apple.views import apple_report

    timing, apple = words.timing, words.apple
    wish = Wish(
        words.device, chosen_units(apple.compute_units), runs=timing.runs, blocks=timing.blocks,
        warmup=timing.warmup, phone=apple.phone, team=apple.team,
    )  # fmt: skip  # two lines read better than seven
    check_system(wish, words.bundle or Path())
    folder = bundle_folder(words.bundle)
    with working("opening the bundle") as (tell, progress):
        result = bench_apple(
            folder,
            wish,
            images=words.measured.images,
            upscale=words.measured.upscale,
            exif=words.measured.exif,
            tell=tell,
            progress=progress,
        )
    report = apple_report(result)
    words.keep(result, report)
    emit(report, result.as_dict(), words.output.json)
    if status := exit_status(result):
        raise typer.Exit(status)


def _write(words: BenchWords, project: Path) -> None:
    timing, apple = words.timing, words.apple
    how: dict[str, object] = {
        "--compute-units": apple.compute_units,
        "--phone": apple.phone,
        "--team": apple.team,
    }
    how |= {"--runs": timing.runs, "--blocks": timing.blocks, "--warmup": timing.warmup, "--out": words.out}
    how |= {"--report": words.output.report}
    if said := given(how):
        raise ConfigError(
            f"{said} say how to measure, and --emit-project measures nothing; give them to its bench.py"
        )
    from morvit_deploy.bundle.manifest import open_manifest
    from morvit_deploy.measuring.apple.bench import emit_project
    from morvit_deploy.measuring.apple.running import runtime_of

    folder = bundle_folder(words.bundle)
    with working("opening the bundle") as (tell, _):
        tell("expected logits of each bucket")
        emit_project(
            folder,
            project,
            images=words.measured.images,
            upscale=words.measured.upscale,
            exif=words.measured.exif,
            force=words.output.force,
        )
    words.say_images()
    steps = [
        ("on the Mac", "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
        ("this Mac", ".venv/bin/python bench.py"),
    ]
    if on_a_phone := runtime_of(open_manifest(folder).target).project.on_a_phone:
        steps.append(("an iPhone", on_a_phone))
    data = {"project": str(project), "bundle": str(folder), "run": [line for _, line in steps]}
    caption = (
        f"{project} is complete: copy it to a Mac and type these lines in it; result.json is the measurement"
    )
    emit(project_report(steps, caption), data, words.output.json)


def project_report(steps: list[tuple[str, str]], caption: str) -> Report:
    """What to type on the Mac."""
    from morvit_deploy.report import Report, Table

    return Report("Project", [Table("Benchmark project", ("what", "line"), steps, caption=caption)])
