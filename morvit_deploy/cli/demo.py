"""`morvit-deploy demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.common import ForceOption, JsonOption, emit, stages, stderr
from morvit_deploy.errors import ConfigError

MODELS = ("digits-expert", "digits-token")
IMAGES = "digits-test"
BESIDE_THE_PACKAGE = Path(__file__).resolve().parents[2] / "examples"


@command("demo")
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write.")] = Path("build/demo"),
    examples: Annotated[
        Path | None,
        typer.Option(help="Folder with the trained examples (default: ./examples).", show_default=False),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run every step on the trained examples: inspect, export, verify, predict, bench, report."""
    folder = _examples(examples)
    started = time.monotonic()
    with stages("loading PyTorch") as tell:
        from morvit_deploy.cli.demo_steps import run_demo

        made = run_demo(folder, out, force=force, tell=tell)
    emit(made.brief, made.as_dict(), as_json)
    seconds = time.monotonic() - started
    stderr().print(
        f"\n{out}: bundles, pictures, and all figures in report.html ({seconds:.0f} s)", highlight=False
    )


def _examples(given: Path | None) -> Path:
    tried = [given] if given is not None else [Path("examples"), BESIDE_THE_PACKAGE]
    for folder in tried:
        if all((folder / name).is_dir() for name in (*MODELS, IMAGES)):
            return folder
    listed = ", ".join(map(str, tried))
    raise ConfigError(
        f"no trained examples in {listed}: expected the folders {', '.join((*MODELS, IMAGES))}; run the demo in a "
        "clone of the repository, or name its examples folder with --examples"
    )
