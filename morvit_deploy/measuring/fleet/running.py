"""Measures the devices of a fleet: one after the other, or those of other machines at once. No torch.

This machine is measured alone, so that nothing beside it takes its cores. A device that fails is an outcome with its
reason, and the others are measured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morvit_deploy.errors import LostError, MorvitError
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.fleet.device import HERE, FleetDevice

if TYPE_CHECKING:
    from morvit_deploy.measuring.cuda.results import CudaResult

INTERRUPTED = "interrupted"

Tell = Callable[[str, str], None]  # of a device's name, and its stage
Share = Callable[[str, float], None]  # the same, and the share that is done
Measure = Callable[[FleetDevice, Callable[[str], None], Callable[[float], None]], "BenchResult | CudaResult"]


@dataclass(frozen=True)
class Outcome:
    """A device with its result; `reason` says why it has none, or only the blocks before it was lost."""

    device: FleetDevice
    result: BenchResult | CudaResult | None = None
    reason: str = ""

    @property
    def complete(self) -> bool:
        """Was everything measured?"""
        return not self.reason


class Fleet:
    """Devices that are being measured by `measure`; `tell` and `share` get the device's name first."""

    def __init__(self, devices: Sequence[FleetDevice], measure: Measure, tell: Tell, share: Share) -> None:
        self.devices, self._measure, self._tell, self._share = devices, measure, tell, share
        self._outcomes: dict[str, Outcome] = {}
        self._stop = threading.Event()

    def run(self, *, at_once: bool) -> bool:
        """Measure all of them; False where Ctrl-C ended it early."""
        machines = list(dict.fromkeys(device.machine for device in self.devices))
        elsewhere = [machine for machine in machines if machine != HERE] if at_once else []
        try:
            self._all_at_once(elsewhere)
            for device in self.devices:
                if device.machine not in elsewhere:
                    self._one(device)
        except KeyboardInterrupt:
            self._stop.set()
        return not self._stop.is_set()

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """In the order of the devices."""
        none = {device.name: Outcome(device, reason=INTERRUPTED) for device in self.devices}
        return tuple((none | self._outcomes)[device.name] for device in self.devices)

    def _all_at_once(self, machines: Sequence[str]) -> None:
        """The machines in threads, and the devices of one machine in turn; Ctrl-C ends them at their next stage."""
        if not machines:
            return
        with ThreadPoolExecutor(len(machines)) as pool:
            try:
                running = [pool.submit(self._machine, machine) for machine in machines]
                wait(running)
            except KeyboardInterrupt:
                self._stop.set()
                raise
        for one in running:
            one.result()

    def _machine(self, machine: str) -> None:
        for device in self.devices:
            if device.machine == machine and not self._stop.is_set():
                self._one(device)

    def _one(self, device: FleetDevice) -> None:
        """Measure a device; in the main thread, KeyboardInterrupt goes on to the caller."""
        try:
            outcome = Outcome(device, self._measure(device, self._telling(device), self._sharing(device)))
        except KeyboardInterrupt:
            if threading.current_thread() is threading.main_thread():
                raise
            outcome = Outcome(device, reason=INTERRUPTED)
        except (MorvitError, OSError) as error:
            outcome = self._dropped(device, error)
        self._outcomes[device.name] = outcome
        self._tell(device.name, "measured" if outcome.complete else f"dropped out: {outcome.reason}")
        self._share(device.name, 1.0)

    def _dropped(self, device: FleetDevice, error: Exception) -> Outcome:
        partial = error.partial if isinstance(error, LostError) else None
        kept = partial if isinstance(partial, BenchResult) and partial.measured else None
        reason = INTERRUPTED if self._stop.is_set() else " ".join(str(error).split()) or type(error).__name__
        return Outcome(device, kept, reason)

    def _telling(self, device: FleetDevice) -> Callable[[str], None]:
        def tell(stage: str) -> None:
            self._check()
            self._tell(device.name, stage)

        return tell

    def _sharing(self, device: FleetDevice) -> Callable[[float], None]:
        def share(done: float) -> None:
            self._check()
            self._share(device.name, done)

        return share

    def _check(self) -> None:
        """End a thread as Ctrl-C would: only the main thread gets the signal."""
        if self._stop.is_set():
            raise KeyboardInterrupt
