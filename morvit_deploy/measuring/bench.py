"""Latency, cold start, load, throughput and memory of bundles, and latency of their buckets. No torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.board.bench import bench_remote
from morvit_deploy.measuring.core.devices import find_device
from morvit_deploy.measuring.core.inputs import Source, folders_of
from morvit_deploy.measuring.core.request import BenchRequest
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cpu.lanes import bench_here
from morvit_deploy.remote.host import Host
from morvit_deploy.timing.loop import BLOCKS, STARTS, WARMUP, Amount, Stages, parts_of


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
    SSH; a Jetson may be this machine. `tell` hears the stage and `progress` the share done. Raises ParityError where
    the device returns other logits than expected, TargetError, BundleError or ImageError; of a remote device
    LostError when it goes away in the middle.
    """
    found = find_device(device, host=host is not None)
    if found.measured_by is not None:
        raise TargetError(f"got device {device!r}; from Python that is {found.measured_by}")
    folders = folders_of(bundles)
    amount = Amount(runs, blocks, warmup, starts)
    stages = Stages(tell, progress, parts_of(len(folders), amount))
    request = BenchRequest(folders, device, Source(images, upscale, batch), amount, threads, stages)
    if not found.remote:
        return bench_here(request)
    return bench_remote(request, host or Host.here(), found.readers)  # without a host, this machine is one
