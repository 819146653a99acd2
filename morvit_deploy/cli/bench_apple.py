"""`morvit-deploy bench --device mac|iphone` and `--emit-project`."""

from __future__ import annotations

from pathlib import Path

from morvit_deploy.cli.shared.bench_request import BenchWords, given
from morvit_deploy.cli.shared.common import bundle_folder, emit, progress_bar
from morvit_deploy.errors import ConfigError


def run_apple(words: BenchWords, as_json: bool) -> None:
    """Measure, or write the project; raises typer.Exit when a measurement ended early."""
    words.check_apple()
    if words.emit_project is not None:
        _write(words, words.emit_project, as_json)
    else:
        _measure(words, as_json)


def _measure(words: BenchWords, as_json: bool) -> None:
    import typer

    from morvit_deploy.measuring.apple.bench import bench_apple
    from morvit_deploy.measuring.apple.dispatching import chosen_units
    from morvit_deploy.measuring.apple.running import CUT, Wish
    from morvit_deploy.measuring.apple.views import apple_report

    wish = Wish(
        words.device,
        chosen_units(words.compute_units or ()),
        runs=words.runs,
        blocks=words.blocks,
        warmup=words.warmup,
        phone=words.phone,
        team=words.team,
    )
    folder = bundle_folder(words.bundle)
    with progress_bar() as (tell, progress):
        result = bench_apple(
            folder, wish, images=words.images, upscale=words.upscale, tell=tell, progress=progress
        )
    words.keep(result)
    emit(apple_report(result), result.as_dict(), as_json)
    if cut := result.conditions.get(CUT):
        raise typer.Exit(cut["exit_status"])


def _write(words: BenchWords, project: Path, as_json: bool) -> None:
    how: dict[str, object] = {
        "--compute-units": words.compute_units,
        "--phone": words.phone,
        "--team": words.team,
    }
    how |= {"--runs": words.runs, "--blocks": words.blocks, "--warmup": words.warmup, "--out": words.out}
    if said := given(how):
        raise ConfigError(
            f"{said} say how to measure, and --emit-project measures nothing; give them to its bench.py"
        )
    from morvit_deploy.measuring.apple.bench import emit_project
    from morvit_deploy.report import Report, Table

    folder = bundle_folder(words.bundle)
    with progress_bar() as (tell, _):
        tell("expected logits of each bucket")
        emit_project(folder, project, images=words.images, upscale=words.upscale, force=words.force)
    steps = [
        ("on the Mac", "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt"),
        ("this Mac", ".venv/bin/python bench.py"),
        ("an iPhone", ".venv/bin/python bench.py --device iphone"),
    ]
    data = {"project": str(project), "bundle": str(folder), "run": [line for _, line in steps]}
    caption = (
        f"{project} is complete: copy it to a Mac and type these lines in it; result.json is the measurement"
    )
    emit(
        Report("Project", [Table("Benchmark project", ("what", "line"), steps, caption=caption)]),
        data,
        as_json,
    )
