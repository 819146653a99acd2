"""Core ML on a connected iPhone through coremltools' model runner and Xcode's tools. No torch.

The runner is an app that coremltools builds and installs; packages and inputs are sent as files, about a second for
each run. Times are the phone's own, without the transfer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import Package
from morvit_deploy.exporters.coreml.sdk.load import coremltools, quiet
from morvit_deploy.measuring.apple.checklist import Phone
from morvit_deploy.measuring.apple.dispatching import UNITS, Reply
from morvit_deploy.measuring.apple.mac import NS_PER_MS, placed, variant
from morvit_deploy.measuring.apple.placement import PlacedOp

WHAT_TO_DO = "unlock it, keep its screen on and the runner app in front, check the cable, and measure again"


class PhoneFunction:
    """A function that the phone has loaded twice, to run it and to time it with MLModelBenchmarker."""

    def __init__(self, phone: IPhone, function: str, units: str) -> None:
        self._phone, self._function, self._units = phone, function, units
        self._model = phone.model(function, units)
        experimental = phone.experimental
        self._model_there: Any = experimental.async_wrapper.MLModelAsyncWrapper.from_spec_or_path(
            self._model.get_spec(),
            weights_dir=self._model.weights_dir,
            compute_units=self._model.compute_unit,
            function_name=self._model.function_name,
            device=phone.device_session,
        )
        self._timed: Any = experimental.perf_utils.MLModelBenchmarker(
            self._model, device=phone.device_session
        )
        phone.wait(self._model_there.load(), f"loading {function}")
        self.load_ms = _known(self._model_there.load_duration_in_nano_seconds, "its load time") / NS_PER_MS

    def run(self, feeds: Mapping[str, Any]) -> Reply:
        outputs = self._phone.wait(self._model_there.predict(dict(feeds)), f"running {self._function}")
        taken = _known(self._model_there.last_predict_duration_in_nano_seconds, "the time of a run")
        return Reply(outputs, taken / NS_PER_MS)

    def times(self, feeds: Mapping[str, Any], runs: int) -> list[float]:
        measuring = self._timed.benchmark_predict(inputs=dict(feeds), iterations=runs, warmup=False)
        return list(self._phone.wait(measuring, f"timing {self._function}").samples)

    def reload(self) -> float:
        loading = self._timed.benchmark_load(iterations=1)
        return float(self._phone.wait(loading, f"loading {self._function} again").samples[0])

    def plan(self) -> Any:
        """The phone's MLComputePlan of this function."""
        return self._phone.wait(
            self._model_there.retrieve_compute_plan(), f"the compute plan of {self._function}"
        )

    def close(self) -> None:
        with contextlib.suppress(TargetError):  # a lost phone has freed it
            self._phone.wait(self._model_there.unload(), f"unloading {self._function}")
        self._model_there = self._timed = None


class IPhone:
    """A connected phone with the runner on it; `work` is a folder for packages. Use as a context manager."""

    device = "iphone"
    together = False  # each load sends the weights: one choice of units at a time

    def __init__(self, package: Package, work: Path, phone: Phone, team: str | None = None) -> None:
        self.package, self.work, self.phone = package, work, phone
        self._ct, self.experimental = coremltools(), experimental_tools()
        self._open: dict[tuple[str, str], PhoneFunction] = {}
        remote = self.experimental.remote_device
        with quiet():
            found = [one for one in remote.Device.get_devices() if one.udid == phone.udid]
        if not found:
            raise TargetError(f"the iPhone {phone.name} is gone; {WHAT_TO_DO}")
        credentials = remote.AppSigningCredentials(development_team=team) if team else None
        preparing = found[0].prepare_for_model_debugging(credentials=credentials)
        self._loop = asyncio.new_event_loop()
        try:
            self.device_session = self.wait(preparing, "building and installing the runner app")
        except TargetError:
            self._loop.close()
            raise

    def open(self, function: str, units: str) -> PhoneFunction:
        opened = PhoneFunction(self, function, units)
        self._open[function, units] = opened
        return opened

    def picture(self, pixels: NDArray[np.uint8]) -> Any:
        return self.package.array(pixels)

    def placement(self, function: str, units: str) -> Sequence[PlacedOp]:
        return list(placed(self._open[function, units].plan(), function))

    def model(self, function: str, units: str) -> Any:
        """An unloaded MLModel with picture inputs as arrays and `function` as the default one."""
        file = self.work / f"{function}.mlpackage"
        if not file.exists():
            named = function if self.package.adaptive else None
            variant(self._ct, self.package.path, file, function=named, arrays=True)
        with quiet():
            return self._ct.models.MLModel(
                str(file),
                compute_units=self._ct.ComputeUnit[UNITS[units]],
                function_name=function if self.package.adaptive else None,
                skip_model_load=True,
            )

    def wait(self, coroutine: Coroutine[Any, Any, Any], doing: str) -> Any:
        """Run one of coremltools' coroutines without progress bars; TargetError when the phone fails."""
        try:
            with quiet():
                return self._loop.run_until_complete(coroutine)
        except Exception as error:  # a lost phone causes any error of subprocess, JSON or files
            raise TargetError(f"{self.phone.name} failed at {doing}: {error}; {WHAT_TO_DO}") from error

    def close(self) -> None:
        """End the runner app."""
        if self.device_session.session is not None:
            self.device_session.session.stop()
        self._loop.close()


def experimental_tools() -> Any:
    """`coremltools.models.ml_program.experimental` with the modules that are used here."""
    coremltools()
    with quiet():
        from coremltools.models.ml_program import experimental
        from coremltools.models.ml_program.experimental import async_wrapper, perf_utils, remote_device

        assert async_wrapper and perf_utils and remote_device
        return experimental


def list_phones(devicectl: str) -> tuple[Phone, ...]:
    """The iPhones that `devicectl` knows; TargetError when it cannot list them."""
    folder = str(Path(devicectl).parent)
    if folder not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] += os.pathsep + folder  # coremltools looks for it there
    remote = experimental_tools().remote_device
    try:
        with quiet():
            devices = remote.Device.get_devices()
    except Exception as error:  # any output of devicectl, or none
        raise TargetError(f"devicectl cannot list devices: {error}; open Xcode once, and try again") from None
    return tuple(
        Phone(one.name, one.udid, one.os_version, one.state.value, one.developer_mode_state)
        for one in devices
        if one.type is remote.DeviceType.IPHONE
    )


def _known(duration: int | None, what: str) -> int:
    if duration is None:
        raise TargetError(f"the phone does not report {what}; use coremltools 9.0 and its own runner app")
    return duration
