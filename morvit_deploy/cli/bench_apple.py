"""`morvit-deploy bench --device mac|iphone` and `--emit-project`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from morvit_deploy.cli.shared.common import bundle_folder, emit, progress_bar, stderr
from morvit_deploy.errors import ConfigError
from morvit_deploy.report import Report, Table

APPLE = ("mac", "iphone")


def run_apple(
    bundle: Path | None,
    device: str,
    project: Path | None,
    cpu_only: dict[str, Any],
    wishes: dict[str, Any],
    images: Path | None,
    upscale: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure, or write the project; raises typer.Exit when a measurement ended early."""
    if said := [option for option, value in cpu_only.items() if value is not None and value != []]:
        raise ConfigError(
            f"{', '.join(said)} have no meaning on a Mac or an iphone, where one bundle of batch 1 is measured under "
            "several compute units; leave them out"
        )
    if device != "iphone" and (
        said := [f"--{word}" for word in ("phone", "team") if wishes[word] is not None]
    ):
        raise ConfigError(f"{', '.join(said)}: for --device iphone; got device {device!r}")
    if project is not None:
        _write(bundle, project, wishes, images, upscale, out, force, as_json)
    else:
        _measure(bundle, device, wishes, images, upscale, out, as_json)


def check_no_apple(device: str, wishes: dict[str, Any]) -> None:
    """ConfigError for options of Apple's devices beside another one."""
    if said := [f"--{word.replace('_', '-')}" for word, value in wishes.items() if value]:
        raise ConfigError(f"{', '.join(said)}: for --device {' or '.join(APPLE)}; got device {device!r}")


def _measure(
    bundle: Path | None,
    device: str,
    wishes: dict[str, Any],
    images: Path | None,
    upscale: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    import typer

    from morvit_deploy.files import write_text
    from morvit_deploy.measuring.apple.bench import bench_apple
    from morvit_deploy.measuring.apple.running import CUT, Wish
    from morvit_deploy.measuring.apple.units import chosen_units
    from morvit_deploy.measuring.apple.views import apple_report

    rest = {name: value for name, value in wishes.items() if name != "compute_units"}
    wish = Wish(device, chosen_units(wishes["compute_units"] or ()), **rest)
    folder = bundle_folder(bundle)
    with progress_bar() as (tell, progress):
        result = bench_apple(folder, wish, images=images, upscale=upscale, tell=tell, progress=progress)
    for warning in result.warnings:
        stderr().print(f"warning: {warning}", markup=False, highlight=False)
    data = result.as_dict()
    if out is not None:
        write_text(out, json.dumps(data, indent=1, allow_nan=False) + "\n")
    emit(apple_report(result), data, as_json)
    if cut := result.conditions.get(CUT):
        raise typer.Exit(cut["exit_status"])


def _write(
    bundle: Path | None,
    project: Path,
    wishes: dict[str, Any],
    images: Path | None,
    upscale: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    said = [f"--{name.replace('_', '-')}" for name, value in wishes.items() if value]
    said += ["--out"] if out is not None else []
    if said:
        raise ConfigError(
            f"{', '.join(said)} say how to measure, and --emit-project measures nothing; give them to its bench.py"
        )
    from morvit_deploy.measuring.apple.bench import emit_project

    folder = bundle_folder(bundle)
    with progress_bar() as (tell, _):
        tell("expected logits of each bucket")
        emit_project(folder, project, images=images, upscale=upscale, force=force)
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
