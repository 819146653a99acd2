"""`morvit-deploy demo`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

from morvit_deploy.cli.app import command
from morvit_deploy.cli.shared.console import emit, remark, working
from morvit_deploy.cli.shared.groups import OUTPUT, Output
from morvit_deploy.exporters.options import Help


@command("demo", "morvit-deploy demo", "morvit-deploy demo -o /tmp/demo --force")
def demo(
    *,
    examples: Annotated[
        Path | None, Help("Folder with the trained examples (default: ./examples).", "DIR", panel="Models")
    ] = None,
    out: Annotated[Path, Help("Folder to write.", "DIR", show_default=True, short="-o", panel=OUTPUT)] = Path(
        "build/demo"
    ),
    output: Output,
) -> None:
    """Run every step on the trained examples: inspect, export, verify, predict, bench, report."""
    from morvit_deploy.demo.examples import find_examples

    folder = find_examples(examples)
    started = time.monotonic()
    with working("loading PyTorch") as (tell, _):
        from morvit_deploy.demo.run import run_demo

        made = run_demo(folder, out, force=output.force, tell=tell)
    emit(made.brief, made.as_dict(), output.json)
    seconds = time.monotonic() - started
    remark("done", f"{out} holds the bundles, pictures, and all figures in report.html ({seconds:.0f} s)")
