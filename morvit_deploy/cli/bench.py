"""`morvit-deploy bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from morvit_deploy.cli.app import command
from morvit_deploy.cli.bench_apple import run_apple
from morvit_deploy.cli.shared.bench import BenchWords
from morvit_deploy.cli.shared.bench_options import Apple, Browsing, Measured, Timing, Verdict, Written
from morvit_deploy.cli.shared.browser import browser_of
from morvit_deploy.cli.shared.console import emit, note, working
from morvit_deploy.cli.shared.groups import Bundle
from morvit_deploy.cli.shared.places import bundle_folder
from morvit_deploy.cli.shared.sources import AlsoForeign, numbers, opened
from morvit_deploy.cli.shared.ssh import Ssh
from morvit_deploy.errors import ConfigError, LostError
from morvit_deploy.exporters.options import Help

if TYPE_CHECKING:
    from morvit_deploy.measuring.core.results import BenchResult
    from morvit_deploy.measuring.cuda.results import CudaResult
    from morvit_deploy.measuring.payoff.result import Payoff
    from morvit_deploy.measuring.regression import Change, Earlier
    from morvit_deploy.remote.host import Host
    from morvit_deploy.report import Report
    from morvit_deploy.timing.result import Result


@command(
    "bench",
    "morvit-deploy bench build/my-model-onnx --against build/baseline --images photos",
    "morvit-deploy bench build/my-model-onnx --profile",
    "morvit-deploy bench build/my-model-onnx --baseline before.json --max-slower 5%",
    "morvit-deploy bench build/my-model-trt --device jetson --host user@jetson -o bench.json",
    "morvit-deploy bench build/my-model-onnx --device browser --listen",
    "morvit-deploy bench build/my-model-onnx --against build/baseline --device-file devices.toml --report fleet.html",
)
def bench(
    bundle: Bundle = None,
    *,
    device: Annotated[
        str,
        Help(
            "Where to measure: cpu, cuda (the first GPU), mac, iphone, jetson (this one, or with --host), ssh (a "
            "Linux board, with --host), or browser (here, or with --listen on a phone).",
            "NAME",
            show_default=True,
            panel=Measured.panel,
        ),
    ] = "cpu",
    measured: Measured,
    timing: Timing,
    verdict: Verdict,
    ssh: Ssh,
    apple: Apple,
    browsing: Browsing,
    output: Written,
    foreign: AlsoForeign,
) -> None:
    """Measure bundles: cold start, load, warm latency, throughput and memory.

    Before anything is timed, the device must return the expected logits of the bundle. Where a bucket is chosen for
    each image, bench also reports per-bucket latency, latency over the bucket mix, and dispatch overhead.

    On jetson the engines are built on it first, and power mode, clocks, temperature and energy are reported. On mac
    and iphone every function of a Core ML bundle is measured under every choice of compute units. On browser a page
    runs the bundle with onnxruntime-web: open the printed URL on this machine, or with --listen on any phone.

    With --device-file the same bundles are measured on several devices, and joined in one report. Ctrl-C ends it and
    keeps the devices that were measured.
    """
    words = BenchWords(
        bundle=bundle, device=device, measured=measured, timing=timing, verdict=verdict, apple=apple,
        browsing=browsing, output=output, foreign=foreign,
    )  # fmt: skip  # two lines read better than nine
    words.check_verdict()
    words.check_regression()
    words.check_fleet(ssh)
    if words.measured.device_file is not None:
        from morvit_deploy.cli.fleet.run import run_fleet

        run_fleet(words, words.measured.device_file)
        return
    words.check_out()
    _measure(words, ssh)


def _measure(words: BenchWords, ssh: Ssh) -> None:
    from morvit_deploy.measuring.core.devices import APPLE, CUDA, check_gpu, check_here, find_device

    is_verdict, writes = words.verdict.verdict, words.apple.emit_project is not None
    if is_verdict:
        check_here(words.device)  # before a bundle is looked for
    found = find_device(words.device, host=ssh.host is not None)
    words.check_profile()
    earlier = _earlier(words)
    place = ssh.place(here=found.remote and ssh.host is None)
    if found.measured_by == APPLE or writes:
        run_apple(words)
        return
    words.check_local()
    result: Result[Any]
    changed: list[Change] = []
    if found.measured_by == CUDA:
        check_gpu()
        result, report = _on_gpu(words)
    elif is_verdict:
        result, report = _payoff(words)
    else:
        measured, report = _bench(words, place)
        result, changed = measured, _compared(measured, report, words, earlier)
    words.keep(result, report)
    if words.measured.images is None and not is_verdict:  # which warns of more than that
        note("no --images given; measured on synthetic pictures")
    emit(report, result.as_dict(), words.output.json)
    if changed:
        from morvit_deploy.measuring.regression import check_changes

        check_changes(changed)


def _compared(
    result: BenchResult, report: Report, words: BenchWords, earlier: Earlier | None
) -> list[Change]:
    """The changes since the earlier run, which become a table of the report."""
    if earlier is None:
        return []
    from morvit_deploy.measuring.regression import change_table, changes

    found = changes(result, earlier, words.output.limit)
    report.parts.append(change_table(found, earlier))
    return found


def _earlier(words: BenchWords) -> Earlier | None:
    """The earlier run, read before anything is measured."""
    if words.output.baseline is None:
        return None
    from morvit_deploy.measuring.regression import read_earlier

    return read_earlier(words.output.baseline)


def _bench(words: BenchWords, host: Host | None) -> tuple[BenchResult, Report]:
    from morvit_deploy.measuring.bench import bench as measure
    from morvit_deploy.timing.loop import STARTS

    timing, batch = words.timing, words.measured.batch
    folders, starts = words.folders, timing.starts or STARTS
    device: Any = words.device  # one of those that `bench` knows
    try:
        with working("opening the bundle") as (tell, progress):
            result = measure(
                folders, device=device, host=host, threads=timing.threads, batch=batch, starts=starts,
                browser=browser_of(words), profile=words.measured.profile,
                tell=tell, progress=progress, **words.settings,
            )  # fmt: skip  # three lines read better than ten
    except LostError as lost:
        if host is not None:
            _keep(lost.partial, words)
        raise
    return result, result.report()


def _keep(partial: BenchResult | None, words: BenchWords) -> None:
    """Write what was measured before the device was lost, marked as partial."""
    blocks = sum(len(one.blocks) for one in partial.measured) if partial else 0
    if partial is None or not blocks:
        note("no block was complete, so nothing was kept")
    elif words.out is None:
        note(f"{blocks} blocks had been measured; with -o FILE they are kept")
    else:
        words.write(partial)
        note(f"{blocks} blocks had been measured; {words.out} has them, marked as partial")


def _on_gpu(words: BenchWords) -> tuple[CudaResult, Report]:
    from morvit_deploy.measuring.cuda.bench import bench_cuda
    from morvit_deploy.measuring.cuda.results import cuda_report

    batches = None if words.measured.batch is None else [words.measured.batch]
    with working("opening the bundle") as (tell, progress):
        result = bench_cuda(
            words.folders,
            batches=batches,
            tf32=words.measured.tf32,
            tell=tell,
            progress=progress,
            **words.settings,
        )
    return result, cuda_report(result)


def _payoff(words: BenchWords) -> tuple[Payoff, Report]:
    batches = words.verdict.batches
    sizes = None if batches is None else numbers("--batches", batches, "1,8,32")
    scale = 1.0 if words.verdict.topk_scale is None else words.verdict.topk_scale
    if words.verdict.checkpoint is None and not Path("config.json").is_file():
        raise ConfigError(
            "--verdict exports other forms of the model; give --checkpoint, the one that BUNDLE was made from"
        )
    folder = bundle_folder(words.bundle)
    from morvit_deploy.measuring.payoff.rounds import BATCHES, payoff
    from morvit_deploy.measuring.payoff.views import payoff_report

    with (
        opened(words.verdict.checkpoint, words.foreign) as source,
        working("opening the bundle") as (tell, progress),
    ):
        result = payoff(
            folder, source.folder, batches=sizes or BATCHES, topk_scale=scale, device=words.device,
            threads=words.timing.threads, tell=tell, progress=progress, **words.settings,
        )  # fmt: skip  # two lines read better than eight
    return result, payoff_report(result)
