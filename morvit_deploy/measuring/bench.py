"""Latency, cold start, load, throughput and memory of bundles, and latency of their buckets. No torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, overload

from morvit_deploy.errors import ConfigError, TargetError
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.measuring.board.bench import bench_remote
from morvit_deploy.measuring.core.devices import APPLE, BROWSER, CUDA, Device, check_profile, find_device
from morvit_deploy.measuring.core.inputs import Source, folders_of
from morvit_deploy.measuring.core.request import BenchRequest
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cpu.lanes import bench_here
from morvit_deploy.remote.host import Host
from morvit_deploy.timing.loop import BLOCKS, STARTS, WARMUP, Amount, Stages, parts_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from morvit_deploy.measuring.browser.options import Browser
    from morvit_deploy.measuring.cuda.results import CudaResult

Bundles = str | Path | Sequence[str | Path]
Units = Literal["all", "cpu_ne", "cpu_gpu", "cpu", "compare"]


class BenchKeywords(TypedDict, total=False):
    """Keywords of `bench`, as a type checker sees them."""

    against: Bundles
    host: str | Host | None
    threads: int | None
    images: str | Path | None
    upscale: bool
    exif: bool
    batch: int | None
    runs: int | None
    blocks: int | None
    warmup: int | None
    starts: int | None
    tf32: bool
    compute_units: Sequence[Units]
    phone: str | None
    team: str | None
    browser: str | Browser | None
    profile: bool
    tell: Callable[[str], None]
    progress: Callable[[float], None]


@overload
def bench(bundles: Bundles, *, device: Literal["cuda"], **how: Unpack[BenchKeywords]) -> CudaResult: ...
@overload
def bench(
    bundles: Bundles,
    *,
    device: Literal["cpu", "mac", "iphone", "jetson", "ssh", "browser"] = "cpu",
    **how: Unpack[BenchKeywords],
) -> BenchResult: ...
@checks_keywords()
def bench(
    bundles: Bundles,
    *,
    device: str = "cpu",
    against: Bundles = (),
    host: str | Host | None = None,
    threads: int | None = None,
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    batch: int | None = None,
    runs: int | None = None,
    blocks: int | None = None,
    warmup: int | None = None,
    starts: int | None = None,
    tf32: bool = False,
    compute_units: Sequence[Units] = (),
    phone: str | None = None,
    team: str | None = None,
    browser: str | Browser | None = None,
    profile: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> BenchResult | CudaResult:
    """Measure one or several bundles in one call; times in ms, memory in MiB.

    `device` is "cpu" (this machine), "cuda" (its first GPU), "mac", "iphone", "jetson" (this one, or with `host`),
    "ssh" (a Linux board, with `host`) or "browser". `host` is a destination as ssh takes it, or a `Host` with
    options. The first bundle is compared with the others and with those of `against`.

    `images` is a folder of pictures (default: synthetic ones); `threads` defaults to all cores; `batch` is for
    bundles of dynamic batch; `runs` are those of a block (default: half a second's worth, at least 10); the `warmup`
    runs before each block are not counted; `starts` new processes are timed for each bundle; on "cuda", `tf32` lets
    ONNX Runtime round the products of fp32 bundles to TF32, which is off otherwise. Of a bundle that
    chooses a bucket for each image, the buckets are measured too: see `Mix`. On Apple devices one Core ML bundle is
    measured for each of `compute_units` (default: all); `phone` and `team` say which iPhone, and who signs the app.
    `browser` is the program to start, or a `Browser` with options (default: the one that opens the printed URL).
    With `profile`, on "cpu", each result also has its time by step of the model, and what bounds each step: see
    `Profile`.
    `tell` is called with each stage, `progress` with the share done.

    Raises ParityError where the device returns other logits than expected, ConfigError for a keyword that the device
    does not have, TargetError, BundleError or ImageError; LostError when a remote device goes away in the middle.

    >>> result = md.bench(["build/adaptive", "build/dense"], images="photos", threads=4)
    >>> print(result.measured[0].latency_ms["p50"], result.ratios[0].median)
    >>> md.bench("build/adaptive", device="jetson", host="user@jetson")
    """
    found = find_device(device, host=host is not None)
    local: Mapping[str, object] = {
        "against": against, "threads": threads, "batch": batch, "starts": starts, "tf32": tf32 or None,
        "compute_units": compute_units, "phone": phone, "team": team, "browser": browser,
    }  # fmt: skip  # a list of names
    _check_keywords(device, found, local)
    if profile:
        check_profile(device)
    folders = (*folders_of(bundles), *(folders_of(against) if against else ()))
    if found.measured_by == APPLE:
        from morvit_deploy.measuring.apple.bench import bench_apple
        from morvit_deploy.measuring.apple.dispatching import chosen_units
        from morvit_deploy.measuring.apple.running import Wish

        wish = Wish(device, chosen_units(compute_units), runs, blocks, warmup, phone, team)
        folder = _only(folders, device)
        return bench_apple(
            folder, wish, images=images, upscale=upscale, exif=exif, tell=tell, progress=progress
        )
    amount = Amount(runs, _given(blocks, BLOCKS), _given(warmup, WARMUP), _given(starts, STARTS))
    if found.measured_by == CUDA:
        from morvit_deploy.measuring.cuda.bench import bench_cuda

        return bench_cuda(
            folders, images=images, upscale=upscale, exif=exif, batches=None if batch is None else [batch],
            runs=runs, blocks=amount.blocks, warmup=amount.warmup, tf32=tf32, tell=tell,
            progress=progress,
        )  # fmt: skip  # two lines read better than nine
    stages = Stages(tell, progress, parts_of(len(folders), amount))
    request = BenchRequest(
        folders, device, Source(images, upscale, batch, exif), amount, threads, stages, profile
    )
    if found.measured_by == BROWSER:
        from morvit_deploy.measuring.browser.bench import bench_browser
        from morvit_deploy.measuring.browser.options import Browser

        return bench_browser(request, browser if isinstance(browser, Browser) else Browser(browser))
    if not found.remote:
        return bench_here(request)
    place = (
        Host(host) if isinstance(host, str) else host or Host.here()
    )  # without a host, this machine is one
    return bench_remote(request, place, found.readers)


def _check_keywords(device: str, found: Device, given: Mapping[str, object]) -> None:
    """ConfigError for keywords that mean nothing on this device."""
    if lacking := [name for name in found.lacks if given[name] not in (None, (), [])]:
        raise ConfigError(f"{', '.join(lacking)}: device {device!r} does not have this; leave it out")


def _only(folders: tuple[Path, ...], device: str) -> Path:
    if len(folders) > 1:
        raise TargetError(
            f"got {len(folders)} bundles, expected one: device {device!r} measures one at a time"
        )
    return folders[0]


def _given(number: int | None, otherwise: int) -> int:
    return otherwise if number is None else number
