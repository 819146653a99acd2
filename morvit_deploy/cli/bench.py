"""`morvit-deploy bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.common import (
    BundleArg,
    ForceOption,
    JsonOption,
    ThreadsOption,
    UpscaleOption,
    bundle_folder,
    emit,
    progress_bar,
    stderr,
)
from morvit_deploy.errors import OutputError


@command("bench")
def bench(
    bundle: BundleArg = None,
    device: Annotated[str, typer.Option(help="Where to measure: cpu.")] = "cpu",
    against: Annotated[
        list[Path] | None,
        typer.Option(
            "--against",
            help="A bundle to compare with, measured in turn; may be repeated.",
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images", help="Folder of images to feed (default: synthetic pictures).", show_default=False
        ),
    ] = None,
    upscale: UpscaleOption = False,
    batch: Annotated[
        int | None,
        typer.Option(
            "--batch",
            min=1,
            help="Images a run, for a bundle of dynamic batch (default: 1).",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs", min=10, help="Runs in a block (default: half a second's worth).", show_default=False
        ),
    ] = None,
    blocks: Annotated[
        int, typer.Option("--blocks", min=1, help="Blocks of each bundle, taken in turn.")
    ] = 10,
    warmup: Annotated[
        int, typer.Option("--warmup", min=0, help="Runs before each block that are not counted.")
    ] = 3,
    starts: Annotated[
        int, typer.Option("--starts", min=1, help="New processes to time cold start and load.")
    ] = 5,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="JSON file to write, with every raw sample.", show_default=False),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure bundles: cold start, load, warm latency, throughput and memory; no PyTorch is loaded."""
    if out is not None and out.exists() and not (force and out.is_file()):
        what = "is a folder, expected a file name" if out.is_dir() else "exists; pass --force to replace it"
        raise OutputError(f"-o {out} {what}")
    from morvit_deploy.files import write_text
    from morvit_deploy.measuring.benchmark import bench as measure
    from morvit_deploy.measuring.benchmark import check_device
    from morvit_deploy.measuring.views import bench_report

    check_device(device)  # before a bundle is looked for
    folders = [bundle_folder(bundle), *(against or [])]
    with progress_bar() as (tell, progress):
        result = measure(
            folders, device=device, threads=threads, images=images, upscale=upscale, batch=batch,
            runs=runs, blocks=blocks, warmup=warmup, starts=starts, tell=tell, progress=progress,
        )  # fmt: skip  # three lines read better than twelve
    data = result.as_dict()
    for warning in result.warnings:
        stderr().print(f"warning: {warning}", markup=False, highlight=False)
    if images is None:
        stderr().print("note: no --images given; fed with synthetic pictures")
    emit(bench_report(result), data, as_json)
    if out is not None:
        write_text(out, json.dumps(data, indent=1, allow_nan=False) + "\n")
