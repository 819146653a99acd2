"""`morvit-deploy bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from morvit_deploy.cli.app import command
from morvit_deploy.cli.bench_apple import APPLE, check_no_apple, run_apple
from morvit_deploy.cli.shared.common import (
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
from morvit_deploy.cli.shared.sources import opened, said_options, takes_source
from morvit_deploy.cli.shared.ssh import (
    HostOption,
    PythonOption,
    RemoteDirOption,
    SshConfigOption,
    SshOption,
    host_of,
)
from morvit_deploy.errors import ConfigError, LostError, OutputError

if TYPE_CHECKING:
    from morvit_deploy.measuring.core.results import BenchResult
    from morvit_deploy.measuring.cuda.results import CudaResult
    from morvit_deploy.measuring.payoff.result import Contest
    from morvit_deploy.report import Report


@command("bench")
@takes_source
def bench(
    bundle: BundleArg = None,
    device: Annotated[
        str,
        typer.Option(
            help="Where to measure: cpu, cuda (the first GPU), mac, iphone, jetson (this one, or with --host), "
            "or ssh (a Linux board; with --host)."
        ),
    ] = "cpu",
    host: HostOption = None,
    ssh_option: SshOption = None,
    ssh_config: SshConfigOption = None,
    remote_dir: RemoteDirOption = None,
    python: PythonOption = None,
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
            "--images",
            help="Folder of images to feed (default: synthetic pictures). Where a bucket is chosen for each, at most "
            "256 are looked at for the mix and 64 of them timed.",
            show_default=False,
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
    verdict: Annotated[
        bool,
        typer.Option(
            "--verdict",
            help="Measure whether the plan of BUNDLE pays, against top-k and dense exports of --checkpoint.",
        ),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="For --verdict: what BUNDLE was made from.", show_default=False),
    ] = None,
    batches: Annotated[
        str | None,
        typer.Option("--batches", help="For --verdict: batch sizes (default: 1,8,32).", show_default=False),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs", min=10, help="Runs in a block (default: half a second's worth).", show_default=False
        ),
    ] = None,
    blocks: Annotated[
        int | None,
        typer.Option(
            "--blocks",
            min=1,
            help="Blocks of each bundle, taken in turn (default: 10; iphone: 3).",
            show_default=False,
        ),
    ] = None,
    warmup: Annotated[
        int | None,
        typer.Option(
            "--warmup",
            min=0,
            help="Runs before each block that are not counted (default: 3; iphone: 1).",
            show_default=False,
        ),
    ] = None,
    starts: Annotated[
        int | None,
        typer.Option(
            "--starts",
            min=1,
            help="New processes to time cold start and load; for cpu, and not for --verdict (default: 5).",
            show_default=False,
        ),
    ] = None,
    compute_units: Annotated[
        list[str] | None,
        typer.Option(
            "--compute-units",
            metavar="UNITS",
            help="For mac and iphone: all, cpu_ne, cpu_gpu or cpu; may be repeated (default: compare, all of them).",
            show_default=False,
        ),
    ] = None,
    phone: Annotated[
        str | None,
        typer.Option("--phone", metavar="NAME_OR_UDID", help="For iphone: which one.", show_default=False),
    ] = None,
    team: Annotated[
        str | None,
        typer.Option(
            "--team", help="For iphone: Apple developer team that signs the runner app.", show_default=False
        ),
    ] = None,
    emit_project: Annotated[
        Path | None,
        typer.Option(
            "--emit-project",
            metavar="DIR",
            help="Measure nothing: write a folder whose bench.py measures a Core ML bundle on a Mac without this "
            "package, for mac and iphone.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="JSON file to write, with every raw sample.", show_default=False),
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    *,
    said: dict[str, Any],
) -> None:
    """Measure bundles: cold start, load, warm latency, throughput and memory.

    Where a bucket is chosen for each image: also by bucket, over the mix, and what choosing costs.

    --verdict times adaptive, top-k and dense forms of one checkpoint; PyTorch is loaded only for it.

    On jetson the engines are built on it first, and power mode, clocks, temperature and energy are told.

    On mac and iphone: parity first, then every function of a Core ML bundle under every choice of compute units.
    """
    if out is not None and out.exists() and not (force and out.is_file()):
        what = "is a folder, expected a file name" if out.is_dir() else "exists; pass --force to replace it"
        raise OutputError(f"-o {out} {what}")
    from morvit_deploy.files import write_text
    from morvit_deploy.measuring.core.devices import check_here, find_device

    _check_together(verdict, against, batch, checkpoint, batches, said)
    if verdict:
        check_here(device)  # before a bundle is looked for
    here = find_device(device, host=host is not None).remote and host is None
    place = host_of(host, ssh_option, ssh_config, remote_dir, python, here=here)
    counts = {"runs": runs, "blocks": blocks, "warmup": warmup}
    apple = {"compute_units": compute_units, "phone": phone, "team": team}
    if device in APPLE or emit_project is not None:
        cpu_only = {"--against": against, "--threads": threads, "--batch": batch, "--starts": starts}
        cpu_only |= {"--verdict": verdict or None}
        run_apple(
            bundle, device, emit_project, cpu_only, apple | counts, images, upscale, out, force, as_json
        )
        return
    check_no_apple(device, apple)
    if device == "cuda" and (verdict or threads is not None):
        raise ConfigError("--verdict and --threads are for --device cpu; leave them out with --device cuda")
    feed = {"device": device, "threads": threads, "images": images, "upscale": upscale}
    from morvit_deploy.measuring.core.blocks import BLOCKS, STARTS, WARMUP

    amount = counts | {"blocks": blocks or BLOCKS, "warmup": WARMUP if warmup is None else warmup}
    result: BenchResult | Contest | CudaResult
    if device == "cuda":
        result, report = _on_gpu([bundle_folder(bundle), *(against or [])], images, upscale, batch, amount)
    elif verdict:
        sizes = None if batches is None else _sizes(batches)
        result, report = _verdict(bundle, checkpoint, said, sizes, feed | amount)
    else:
        folders = [bundle_folder(bundle), *(against or [])]
        more = {"host": place, "batch": batch, "starts": starts or STARTS}
        try:
            result, report = _bench(folders, feed | amount | more)
        except LostError as lost:
            _keep(lost.partial, out)
            raise
    data = result.as_dict()
    for warning in result.warnings:
        stderr().print(f"warning: {warning}", markup=False, highlight=False)
    if images is None and not verdict:  # which warns of more than that
        stderr().print("note: no --images given; fed with synthetic pictures")
    if out is not None:
        write_text(out, json.dumps(data, indent=1, allow_nan=False) + "\n")
    emit(report, data, as_json)


def _bench(folders: list[Path], options: dict[str, Any]) -> tuple[BenchResult, Report]:
    from morvit_deploy.measuring.core.bench import bench as measure
    from morvit_deploy.measuring.core.views import bench_report

    with progress_bar() as (tell, progress):
        result = measure(folders, tell=tell, progress=progress, **options)
    return result, bench_report(result)


def _keep(partial: BenchResult | None, out: Path | None) -> None:
    """Write what was measured before the device was lost, marked as partial."""
    from morvit_deploy.files import write_text

    blocks = sum(len(one.blocks) for one in partial.measured) if partial else 0
    if partial is None or not blocks:
        stderr().print("note: no block was whole, so nothing was kept")
    elif out is None:
        stderr().print(
            f"note: {blocks} blocks had been measured; with -o FILE they are kept", highlight=False
        )
    else:
        write_text(out, json.dumps(partial.as_dict(), indent=1, allow_nan=False) + "\n")
        stderr().print(
            f"note: {blocks} blocks had been measured; {out} has them, marked as partial", markup=False
        )


def _on_gpu(
    folders: list[Path], images: Path | None, upscale: bool, batch: int | None, amount: dict[str, Any]
) -> tuple[CudaResult, Report]:
    from morvit_deploy.measuring.cuda.bench import bench_cuda
    from morvit_deploy.measuring.cuda.results import cuda_report

    batches = None if batch is None else [batch]
    with progress_bar() as (tell, progress):
        result = bench_cuda(
            folders, images=images, upscale=upscale, batches=batches, tell=tell, progress=progress, **amount
        )
    return result, cuda_report(result)


def _verdict(
    bundle: Path | None,
    checkpoint: Path | None,
    said: dict[str, Any],
    sizes: list[int] | None,
    options: dict[str, Any],
) -> tuple[Contest, Report]:
    if checkpoint is None and not Path("config.json").is_file():
        raise ConfigError(
            "--verdict exports other forms of the model; give --checkpoint, the one that BUNDLE was made from"
        )
    folder = bundle_folder(bundle)
    from morvit_deploy.measuring.payoff.rounds import BATCHES, contest
    from morvit_deploy.measuring.payoff.views import contest_report

    with opened(checkpoint, said) as source, progress_bar() as (tell, progress):
        result = contest(
            folder, source.folder, batches=sizes or BATCHES, tell=tell, progress=progress, **options
        )
    return result, contest_report(result)


def _check_together(
    verdict: bool,
    against: list[Path] | None,
    batch: int | None,
    checkpoint: Path | None,
    batches: str | None,
    said: dict[str, Any],
) -> None:
    """ConfigError for options that have no meaning beside each other."""
    if verdict and (against or batch is not None):
        raise ConfigError(
            "--verdict chooses what to measure: leave out --against, and say --batches instead of --batch"
        )
    if not verdict and (checkpoint is not None or batches is not None):
        raise ConfigError("--checkpoint and --batches are for --verdict; give it too, or leave them out")
    if not verdict and (words := said_options(said)):
        raise ConfigError(
            f"{', '.join(words)} say how to read --checkpoint, which is for --verdict; leave them out"
        )


def _sizes(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(f"--batches: got {text!r}, expected positive numbers with commas, as in 1,8,32")
    return [int(part) for part in parts]
