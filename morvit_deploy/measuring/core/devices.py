"""The devices of `bench`, by the name that --device takes. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from morvit_deploy.agent.jetson import System, is_jetson
from morvit_deploy.agent.trt.build import this_device
from morvit_deploy.errors import ConfigError, TargetError
from morvit_deploy.exporters.targets import find_target, targets
from morvit_deploy.keywords import did_you_mean
from morvit_deploy.measuring.core.inputs import Subject

ONLY_APPLE = ("compute_units", "phone", "team")
ONLY_CUDA = ("tf32",)
ONLY_BROWSER = ("browser",)
NOT_APPLE = ("against", "threads", "batch", "starts", *ONLY_CUDA)


@dataclass(frozen=True)
class Device:
    """A kind of device and how it is measured; a target lists the devices that can run it."""

    remote: bool = False  # reached with --host
    is_here: Callable[[], bool] = lambda: False  # is this machine such a device, so that --host is optional?
    readers: tuple[str, ...] = ()  # names in `agent.conditions.READERS`, read before and after
    measured_by: str | None = None  # the function that measures it, if not `bench`
    lacks: tuple[str, ...] = (
        *ONLY_APPLE,
        *ONLY_CUDA,
        *ONLY_BROWSER,
    )  # keywords of `bench` that mean nothing there
    synonyms: tuple[str, ...] = ()  # what others call it, for "did you mean"
    profile: str | None = None  # what to do instead where `bench --profile` cannot be done


def _on_jetson() -> bool:
    return is_jetson(System())


APPLE = "morvit_deploy.measuring.apple.bench.bench_apple"
_XCODE = "open the package in Xcode, whose performance report has the time of each operation"
BROWSER = "morvit_deploy.measuring.browser.bench.bench_browser"
CUDA = "morvit_deploy.measuring.cuda.bench.bench_cuda"
DEVICES = {
    "cpu": Device(),
    "cuda": Device(
        measured_by=CUDA,
        lacks=(*ONLY_APPLE, *ONLY_BROWSER, "threads", "starts"),
        synonyms=("gpu", "nvidia", "tensorrt"),
        profile="profile its engine with `trtexec --loadEngine=FILE --dumpProfile --separateProfileRun`",
    ),
    "mac": Device(
        measured_by=APPLE,
        lacks=(*NOT_APPLE, *ONLY_BROWSER, "phone", "team"),
        synonyms=("macos", "macbook", "mps"),
        profile=_XCODE,
    ),
    "iphone": Device(
        measured_by=APPLE, lacks=(*NOT_APPLE, *ONLY_BROWSER), synonyms=("ios", "phone"), profile=_XCODE
    ),
    "jetson": Device(
        remote=True,
        is_here=_on_jetson,
        readers=("linux", "jetson"),
        synonyms=("orin", "tegra"),
        profile="profile its engine there with `trtexec --loadEngine=FILE --dumpProfile --separateProfileRun`",
    ),
    "ssh": Device(
        remote=True,
        readers=("linux",),
        synonyms=("board", "remote", "raspberrypi"),
        profile="install this package on the board and run `morvit-deploy bench BUNDLE --profile` there",
    ),
    "browser": Device(
        measured_by=BROWSER,
        lacks=(*ONLY_APPLE, *ONLY_CUDA),
        synonyms=("web", "wasm", "webgpu", "android", "chromium", "chrome", "firefox", "safari"),
        profile="record the page in the browser's own performance panel",
    ),
}


_SAY_HOST = {
    "jetson": "this machine is no Jetson (it has no /etc/nv_tegra_release, and its device tree names none); give "
    "the Jetson's ssh destination, as in `morvit-deploy bench --device jetson --host user@jetson`, or type it there "
    "without --host"
}


_NO_HOST = {
    "browser": "--device browser is not reached over SSH; leave out --host, and open the printed URL on the device "
    "(--listen)"
}


def find_device(name: str, *, host: bool = False) -> Device:
    """The device called `name`; TargetError for one that this version does not measure.

    ConfigError where a host is given for this machine, or none for another.
    """
    if name not in DEVICES:
        words = {word: own for own, device in DEVICES.items() for word in device.synonyms}
        hint = did_you_mean(name, DEVICES, words)
        raise TargetError(f"got device {name!r}; this version measures on: {', '.join(DEVICES)}{hint}")
    device = DEVICES[name]
    if host and not device.remote:
        raise ConfigError(
            _NO_HOST.get(name)
            or f"--device {name} is this machine; leave out --host, or measure the other one with --device ssh"
        )
    if device.remote and not host and not device.is_here():
        raise ConfigError(
            _SAY_HOST.get(name, f"--device {name} is reached over SSH; give it with --host user@host")
        )
    return device


def check_profile(name: str) -> None:
    """ConfigError for a device where ONNX Runtime's profiler does not run, with what to do instead."""
    if (instead := DEVICES[name].profile) is not None:
        raise ConfigError(
            f"profile: reads ONNX Runtime's profiler on this machine's CPU; got device {name!r}, so leave it out and "
            f"{instead}, or use device 'cpu'"
        )


def check_gpu() -> None:
    """TargetError where no NVIDIA GPU answers."""
    if this_device() is None:
        raise TargetError(
            "this machine has no NVIDIA GPU that its driver (libcuda.so.1) answers for; --device cuda "
            "measures a GPU of this machine. Run it where the GPU is, or reach a Jetson with --device jetson --host "
            "user@host"
        )


def check_here(name: str) -> None:
    """TargetError for a device that `bench` itself does not measure on this machine."""
    here = [own for own, device in DEVICES.items() if not device.remote and device.measured_by is None]
    if name not in here:
        raise TargetError(f"got device {name!r}; this is measured on: {', '.join(here)}")


def check_targets(name: str, subjects: Iterable[Subject]) -> None:
    """TargetError for a bundle that the device cannot run, naming the devices that can."""
    able = [target.name for target in targets().values() if name in target.devices]
    for subject in subjects:
        target = find_target(subject.manifest.target)
        if name not in target.devices:
            others = [f"--device {other}" for other in target.devices]
            raise TargetError(
                f"{subject.bundle} is for {target.name}, and --device {name} runs {', '.join(able)}; export it with "
                f"--target {able[0]}" + (f", or measure it with {' or '.join(others)}" if others else "")
            )
