"""The same bundles on several devices, in one call. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from morvit_deploy.errors import ConfigError, TargetError
from morvit_deploy.files import temporary
from morvit_deploy.keywords import checks_keywords
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.devices import check_targets
from morvit_deploy.measuring.core.inputs import Source, folders_of, prepare
from morvit_deploy.measuring.fleet.device import AMOUNT, FleetDevice, check_names
from morvit_deploy.measuring.fleet.result import FleetResult
from morvit_deploy.measuring.fleet.running import Fleet, Share, Tell
from morvit_deploy.timing.loop import BLOCKS, STARTS, WARMUP, Amount

if TYPE_CHECKING:
    from morvit_deploy.measuring.browser.options import Browser
    from morvit_deploy.measuring.core.results import BenchResult
    from morvit_deploy.measuring.cuda.results import CudaResult
    from morvit_deploy.remote.host import Host

PATIENCE_S = 600.0  # for a person to open the page on a phone: the other devices wait for it


class DeviceKeywords(TypedDict, total=False):
    """A device of `bench_fleet`: keywords of `bench`."""

    device: str
    host: str | Host | None
    browser: str | Browser | None
    tf32: bool
    threads: int | None
    runs: int | None
    blocks: int | None
    warmup: int | None
    starts: int | None


class FleetInterrupt(KeyboardInterrupt):
    """Ctrl-C during a fleet; `partial` has the devices that were measured before."""

    def __init__(self, partial: FleetResult) -> None:
        super().__init__()
        self.partial = partial


@checks_keywords()
def bench_fleet(
    bundles: str | Path | Sequence[str | Path],
    devices: Mapping[str, DeviceKeywords],
    *,
    at_once: bool = False,
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    batch: int | None = None,
    tell: Callable[[str, str], None] = lambda device, stage: None,
    progress: Callable[[str, float], None] = lambda device, share: None,
) -> FleetResult:
    """Measure the same bundles on several devices; times in ms.

    `devices` is a dictionary of names, each with keywords of `bench` for that device: `device` ("cpu", "cuda", "ssh",
    "jetson" or "browser"), `host`, `browser`, `tf32`, `threads`, `runs`, `blocks`, `warmup` and `starts`. With
    `at_once`, devices on other machines are measured at the same time; this machine is always measured alone.

    `images`, `upscale`, `exif` and `batch` are as in `bench`; on "cuda" the batch defaults to 1. `tell` is called
    with a device's name and each stage, `progress` with its name and the share done, both also from other threads.

    A device that fails is in `dropped` of the result with its reason, and the others are measured; `check()` raises
    CheckFailed then. Raises ConfigError, TargetError, BundleError or ImageError before anything is measured where
    devices, bundles or images cannot be used, and FleetInterrupt, a KeyboardInterrupt, on Ctrl-C: its `partial` has
    the devices measured before.

    >>> md.bench_fleet(["build/adaptive", "build/dense"], {"desk": {"threads": 2},
    ...                "pi": {"device": "ssh", "host": "pi@pi.local"}}, at_once=True)
    """
    found = [_device(name, keywords) for name, keywords in devices.items()]
    return measure_fleet(
        bundles, found, at_once=at_once, images=images, upscale=upscale, exif=exif, batch=batch, tell=tell,
        progress=progress,
    )  # fmt: skip  # two lines read better than nine


def measure_fleet(
    bundles: str | Path | Sequence[str | Path],
    devices: Sequence[FleetDevice],
    *,
    at_once: bool,
    images: str | Path | None,
    upscale: bool,
    exif: bool,
    batch: int | None,
    tell: Tell,
    progress: Share,
) -> FleetResult:
    """`bench_fleet` with devices that were checked one by one."""
    check_names(device.name for device in devices)
    folders = folders_of(bundles)
    source = Source(images, upscale, batch, exif)
    _check(folders, source, devices)

    def measure(
        device: FleetDevice, say: Callable[[str], None], share: Callable[[float], None]
    ) -> BenchResult | CudaResult:
        how: dict[str, Any] = {
            **device.keywords,
            "images": images,
            "upscale": upscale,
            "exif": exif,
            "batch": batch,
        }
        if device.kind == "browser":
            how["browser"] = replace(device.browser, waiting=_patience(share))
        if device.kind == "cuda":
            how["batch"] = batch or 1
        kind: Any = device.kind
        measured: BenchResult | CudaResult = bench(folders, device=kind, tell=say, progress=share, **how)
        return measured

    fleet = Fleet(devices, measure, tell, progress)
    whole = fleet.run(at_once=at_once)
    result = FleetResult(tuple(map(str, folders)), fleet.outcomes, interrupted=not whole)
    if not whole:
        raise FleetInterrupt(result)
    return result


def _device(name: str, keywords: DeviceKeywords) -> FleetDevice:
    own: dict[str, Any] = dict(keywords)
    return FleetDevice(name, own.pop("device", "cpu"), own)


def _check(folders: tuple[Path, ...], source: Source, devices: Sequence[FleetDevice]) -> None:
    """Whatever would fail on every device, or is known before: bundles, images, and what each kind runs."""
    if twice := [str(folder) for folder in dict.fromkeys(folders) if folders.count(folder) > 1]:
        raise ConfigError(f"got {', '.join(twice)} twice; a fleet compares each bundle with the first one")
    for device in devices:
        given = {name: device.keywords.get(name) for name in AMOUNT}
        least = {"blocks": BLOCKS, "warmup": WARMUP, "starts": STARTS}
        Amount(given["runs"], **{name: _given(given[name], otherwise) for name, otherwise in least.items()})
    with temporary("bench") as scratch:
        subjects = [prepare(folder, source, scratch / f"{i}.npy") for i, folder in enumerate(folders)]
        for device in devices:
            try:
                check_targets(device.kind, subjects)
            except TargetError as error:
                raise TargetError(f"device {device.name!r}: {error}") from None


def _given(number: int | None, otherwise: int) -> int:
    return otherwise if number is None else number


def _patience(share: Callable[[float], None]) -> Callable[[], None]:
    """Called while a page is waited for: TargetError after PATIENCE_S; `share` raises after Ctrl-C."""
    begun = time.monotonic()

    def waiting() -> None:
        share(0.0)
        if time.monotonic() - begun > PATIENCE_S:
            raise TargetError(f"nobody opened the page within {PATIENCE_S / 60:.0f} minutes")

    return waiting
