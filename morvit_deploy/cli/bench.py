"""`morvit-deploy bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.cli.app import command
from morvit_deploy.cli.bench_apple import run_apple
from morvit_deploy.cli.shared.bench_options import (
    AgainstOption,
    BatchesOption,
    BatchOption,
    BlocksOption,
    DeviceOption,
    MadeFromOption,
    OutOption,
    PhoneOption,
    PicturesOption,
    ProjectOption,
    RunsOption,
    StartsOption,
    TeamOption,
    UnitsOption,
    VerdictOption,
    WarmupOption,
)
from morvit_deploy.cli.shared.bench_request import BenchWords
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
from morvit_deploy.cli.shared.sources import opened, takes_source
from morvit_deploy.cli.shared.ssh import (
    HostOption,
    PythonOption,
    RemoteDirOption,
    SshConfigOption,
    SshOption,
    host_of,
)
from morvit_deploy.errors import ConfigError, LostError

if TYPE_CHECKING:
    from morvit_deploy.measuring.core.results import BenchResult
    from morvit_deploy.measuring.cuda.results import CudaResult
    from morvit_deploy.measuring.payoff.result import Payoff
    from morvit_deploy.remote.host import Host
    from morvit_deploy.report import Report
    from morvit_deploy.timing.result import Result


@command("bench")
@takes_source
def bench(
    bundle: BundleArg = None,
    device: DeviceOption = "cpu",
    host: HostOption = None,
    ssh_option: SshOption = None,
    ssh_config: SshConfigOption = None,
    remote_dir: RemoteDirOption = None,
    python: PythonOption = None,
    against: AgainstOption = None,
    threads: ThreadsOption = None,
    images: PicturesOption = None,
    upscale: UpscaleOption = False,
    batch: BatchOption = None,
    verdict: VerdictOption = False,
    checkpoint: MadeFromOption = None,
    batches: BatchesOption = None,
    runs: RunsOption = None,
    blocks: BlocksOption = None,
    warmup: WarmupOption = None,
    starts: StartsOption = None,
    compute_units: UnitsOption = None,
    phone: PhoneOption = None,
    team: TeamOption = None,
    emit_project: ProjectOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
    *,
    said: dict[str, Any],
) -> None:
    """Measure bundles: cold start, load, warm latency, throughput and memory.

    Before anything is timed, the device must return the logits that are expected of the bundle.

    Where a bucket is chosen for each image: also per-bucket latency, latency over the bucket mix, and dispatch
    overhead.

    --verdict times adaptive, top-k and dense forms of one checkpoint; PyTorch is loaded only for it.

    On jetson the engines are built on it first, and power mode, clocks, temperature and energy are reported.

    On mac and iphone every function of a Core ML bundle is measured under every choice of compute units.
    """
    words = BenchWords(
        bundle=bundle, device=device, against=against, threads=threads, images=images, upscale=upscale, batch=batch,
        verdict=verdict, checkpoint=checkpoint, batches=batches, runs=runs, blocks=blocks, warmup=warmup,
        starts=starts, compute_units=compute_units, phone=phone, team=team, emit_project=emit_project, out=out,
        force=force, said=said,
    )  # fmt: skip  # five lines read better than twenty
    words.check_out()
    words.check_verdict()
    from morvit_deploy.measuring.core.devices import APPLE, CUDA, check_here, find_device

    if verdict:
        check_here(device)  # before a bundle is looked for
    found = find_device(device, host=host is not None)
    place = host_of(host, ssh_option, ssh_config, remote_dir, python, here=found.remote and host is None)
    if found.measured_by == APPLE or emit_project is not None:
        run_apple(words, as_json)
        return
    words.check_local()
    result: Result[Any]
    if found.measured_by == CUDA:
        result, report = _on_gpu(words)
    elif verdict:
        result, report = _payoff(words)
    else:
        result, report = _bench(words, place)
    words.keep(result)
    if images is None and not verdict:  # which warns of more than that
        stderr().print("note: no --images given; fed with synthetic pictures")
    emit(report, result.as_dict(), as_json)


def _bench(words: BenchWords, host: Host | None) -> tuple[BenchResult, Report]:
    from morvit_deploy.measuring.bench import bench as measure
    from morvit_deploy.timing.loop import STARTS

    folders = words.folders
    device: Any = words.device  # one of those that `bench` knows
    try:
        with progress_bar() as (tell, progress):
            result = measure(
                folders,
                device=device,
                host=host,
                threads=words.threads,
                batch=words.batch,
                starts=words.starts or STARTS,
                tell=tell,
                progress=progress,
                **words.settings,
            )
    except LostError as lost:
        _keep(lost.partial, words)
        raise
    return result, result.report()


def _keep(partial: BenchResult | None, words: BenchWords) -> None:
    """Write what was measured before the device was lost, marked as partial."""
    blocks = sum(len(one.blocks) for one in partial.measured) if partial else 0
    if partial is None or not blocks:
        stderr().print("note: no block was whole, so nothing was kept")
    elif words.out is None:
        stderr().print(
            f"note: {blocks} blocks had been measured; with -o FILE they are kept", highlight=False
        )
    else:
        from morvit_deploy.files import write_text

        write_text(words.out, json.dumps(partial.as_dict(), indent=1, allow_nan=False) + "\n")
        stderr().print(
            f"note: {blocks} blocks had been measured; {words.out} has them, marked as partial", markup=False
        )


def _on_gpu(words: BenchWords) -> tuple[CudaResult, Report]:
    from morvit_deploy.measuring.cuda.bench import bench_cuda
    from morvit_deploy.measuring.cuda.results import cuda_report

    with progress_bar() as (tell, progress):
        result = bench_cuda(
            words.folders,
            batches=None if words.batch is None else [words.batch],
            tell=tell,
            progress=progress,
            **words.settings,
        )
    return result, cuda_report(result)


def _payoff(words: BenchWords) -> tuple[Payoff, Report]:
    sizes = words.sizes
    if words.checkpoint is None and not Path("config.json").is_file():
        raise ConfigError(
            "--verdict exports other forms of the model; give --checkpoint, the one that BUNDLE was made from"
        )
    folder = bundle_folder(words.bundle)
    from morvit_deploy.measuring.payoff.rounds import BATCHES, payoff
    from morvit_deploy.measuring.payoff.views import payoff_report

    with opened(words.checkpoint, words.said) as source, progress_bar() as (tell, progress):
        result = payoff(
            folder,
            source.folder,
            batches=sizes or BATCHES,
            device=words.device,
            threads=words.threads,
            tell=tell,
            progress=progress,
            **words.settings,
        )
    return result, payoff_report(result)
