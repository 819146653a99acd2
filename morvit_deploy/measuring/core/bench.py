"""Latency, cold start, load, throughput and memory of bundles, and latency of their buckets. No torch."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from morvit_deploy.errors import TargetError
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.measuring.board.bench import bench_remote
from morvit_deploy.measuring.core.blocks import (
    BLOCKS,
    STARTS,
    WARMUP,
    Amount,
    Teller,
    fitting_runs,
    start_lanes,
    take_in_turn,
)
from morvit_deploy.measuring.core.conditions import read_conditions, warnings_about
from morvit_deploy.measuring.core.devices import check_targets, find_device
from morvit_deploy.measuring.core.inputs import Source, prepare
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.mix.runs import MixRuns
from morvit_deploy.remote.host import Host

TIMED = (
    "warm runs: uint8 pixels in memory to every output, copies included, decoding of files excluded; "
    "cold start: new process to first answer, interpreter and imports included, files already in the system's cache"
)
TIMED_THERE = (
    TIMED + "; on the device, by its own clocks, without the network; Python compiles the agent each time"
)


def bench(
    bundles: str | Path | Sequence[str | Path],
    *,
    device: str = "cpu",
    host: Host | None = None,
    threads: int | None = None,
    images: str | Path | None = None,
    upscale: bool = False,
    batch: int | None = None,
    runs: int | None = None,
    blocks: int = BLOCKS,
    warmup: int = WARMUP,
    starts: int = STARTS,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> BenchResult:
    """Measure one or several bundles in one call; times in ms, memory in MiB.

    `images` is a folder of pictures (default: synthetic ones); `threads` defaults to all cores; `batch` is for
    bundles of dynamic batch; `runs` are those of a block (default: half a second's worth, at least 10); the `warmup`
    runs before each block are not counted; `starts` new processes are timed for each bundle. Of a bundle that
    chooses a bucket for each image, the buckets are measured too: see `Mix`. `host` is where a device is reached over
    SSH; a Jetson may be this machine. `tell` hears the stage and `progress` the share done. Raises TargetError,
    BundleError or ImageError; of a remote device ParityError where it computes something else, and LostError when it
    goes away in the middle.
    """
    if (other := find_device(device, host=host is not None).measured_by) is not None:
        raise TargetError(f"got device {device!r}; from Python that is {other}")
    amount = Amount(runs, blocks, warmup, starts)
    folders = [Path(b) for b in ([bundles] if isinstance(bundles, (str, Path)) else bundles)]
    if not folders:
        raise TargetError("got no bundle, expected one or more")
    if host is None and find_device(device).remote:  # one that this machine is
        host = Host.here()
    if host is not None:
        source, settled = Source(images, upscale, batch), settings(images, amount, timed=TIMED_THERE)
        return bench_remote(folders, device, host, source, amount, threads, settled, tell, progress)
    threads = checked_threads(threads)
    teller = Teller(tell, progress, total=len(folders) * (starts + blocks))
    tell("checking bundles and inputs")
    with tempfile.TemporaryDirectory(prefix="morvit-bench-") as scratch, ExitStack() as stack:
        source = Source(images, upscale, batch)
        subjects = [prepare(folder, source, Path(scratch) / f"{i}.npy") for i, folder in enumerate(folders)]
        check_targets(device, subjects)
        conditions = read_conditions()
        named = [(str(subject.bundle), subject) for subject in subjects]
        lanes = start_lanes(named, threads, amount.starts, stack, teller)
        runs = amount.runs or fitting_runs(lanes, warmup)
        for lane in lanes:
            if lane.subject.manifest.plan.adaptive:
                tell(f"looking at the buckets of {lane.name}")
                lane.mix = MixRuns(lane.subject, lane.worker, threads, stack, runs, warmup)
        take_in_turn(lanes, runs, warmup, blocks, teller)
        measured = tuple(lane.measured(lane.worker.memory_mib()) for lane in lanes)
    conditions |= {"threads": threads, **settings(images, amount), "runs_per_block": runs}
    return BenchResult(device, measured, conditions, warnings_about(conditions, measured))


def settings(images: str | Path | None, amount: Amount, timed: str = TIMED) -> dict[str, Any]:
    """What was chosen for this measurement; `inputs` says where the pictures came from."""
    return {
        "blocks": amount.blocks,
        "warmup_runs_per_block": amount.warmup,
        "starts": amount.starts,
        "inputs": "synthetic pictures" if images is None else f"pictures of {images}",
        "timed": timed,
    }
