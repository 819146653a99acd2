"""What `bench` can measure on: a table by the name that --device takes. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from morvit_deploy.agent.jetson import System, is_jetson
from morvit_deploy.agent.trt.build import this_device
from morvit_deploy.errors import ConfigError, TargetError, did_you_mean
from morvit_deploy.exporters.targets import find_target, targets
from morvit_deploy.measuring.core.inputs import Subject


@dataclass(frozen=True)
class Device:
    """A kind of device, and what it is measured with; a target names the devices that can measure it."""

    remote: bool = False  # reached with --host
    is_here: Callable[[], bool] = lambda: False  # is this machine one, so that --host may be left out?
    readers: tuple[str, ...] = ()  # names in `agent.conditions.READERS`, read before and after
    aliases: tuple[str, ...] = ()  # other words for it, to suggest its name
    measured_by: str | None = None  # the function that measures it, where that is not `bench`


def _on_jetson() -> bool:
    return is_jetson(System())


APPLE = "morvit_deploy.measuring.apple.bench.bench_apple"
CUDA = "morvit_deploy.measuring.cuda.bench.bench_cuda"
DEVICES = {
    "cpu": Device(),
    "cuda": Device(measured_by=CUDA, aliases=("gpu", "nvidia", "rtx", "cuda:0")),
    "mac": Device(measured_by=APPLE, aliases=("macos", "macbook", "apple")),
    "iphone": Device(measured_by=APPLE, aliases=("phone", "ios", "ipad")),
    "jetson": Device(
        remote=True,
        is_here=_on_jetson,
        readers=("linux", "jetson"),
        aliases=("orin", "jetson-orin", "xavier"),
    ),
    "ssh": Device(remote=True, readers=("linux",), aliases=("remote", "board", "raspberry-pi")),
}


_SAY_HOST = {
    "jetson": "this machine is no Jetson: it has no /etc/nv_tegra_release, and its device tree does not name one. "
    "Give the Jetson's address, as in `morvit-deploy bench --device jetson --host user@jetson`, or run bench on the "
    "Jetson without --host"
}


def find_device(name: str, *, host: bool = False) -> Device:
    """The device called `name`; TargetError for one that this version does not measure.

    ConfigError where a host is given for this machine, or none for another.
    """
    if name not in DEVICES:
        words = {word: own for own, device in DEVICES.items() for word in (own, *device.aliases)}
        hint = " ".join(filter(None, [did_you_mean(name, words), "this version measures on:"]))
        raise TargetError(f"got device {name!r}; {hint} {', '.join(DEVICES)}")
    device = DEVICES[name]
    if host and not device.remote:
        raise ConfigError(
            f"--device {name} is this machine; leave out --host, or measure the other one with --device ssh"
        )
    if device.remote and not host and not device.is_here():
        raise ConfigError(
            _SAY_HOST.get(
                name, f"--device {name} is reached over SSH; give its address with --host user@host"
            )
        )
    return device


def check_gpu() -> None:
    """TargetError where no NVIDIA GPU answers."""
    if this_device() is None:
        raise TargetError(
            "this machine has no NVIDIA GPU that its driver (libcuda.so.1) answers for; --device cuda "
            "measures a GPU of this machine. Run it where the GPU is, or reach a Jetson with --device jetson --host "
            "user@host"
        )


def check_here(name: str) -> None:
    """TargetError for a device whose measurement is not `bench`'s own, on this machine."""
    here = [own for own, device in DEVICES.items() if not device.remote and device.measured_by is None]
    if name not in here:
        raise TargetError(f"got device {name!r}; this is measured on: {', '.join(here)}")


def check_targets(name: str, subjects: Iterable[Subject]) -> None:
    """TargetError for a bundle that the device cannot run; it names the devices that can."""
    able = [target.name for target in targets().values() if name in target.devices]
    for subject in subjects:
        target = find_target(subject.manifest.target)
        if name not in target.devices:
            others = [f"--device {other}" for other in target.devices]
            raise TargetError(
                f"{subject.bundle} is for {target.name}, and --device {name} runs {', '.join(able)}; export it with "
                f"--target {able[0]}" + (f", or measure it with {' or '.join(others)}" if others else "")
            )
