"""The order of a fleet: who is measured beside whom, what a failing device leaves, and where Ctrl-C ends it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from measurements import measured

from morvit_deploy.errors import LostError, ParityError, TargetError
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.fleet.device import FleetDevice
from morvit_deploy.measuring.fleet.running import INTERRUPTED, Fleet, Outcome

HERE_1, HERE_2 = FleetDevice("cpu", "cpu", {}), FleetDevice("tab", "browser", {"browser": "chromium"})
PI, ALSO_PI = (
    FleetDevice("pi", "ssh", {"host": "u@pi"}),
    FleetDevice("pi-2", "ssh", {"host": "ssh://v@PI:2222"}),
)
NANO = FleetDevice("nano", "jetson", {"host": "nano"})
LOCAL = FleetDevice("local", "ssh", {"host": "me@localhost"})
ALL = (HERE_1, PI, HERE_2, NANO, ALSO_PI, LOCAL)
SOON_S = 10.0


def found(device: str = "cpu") -> BenchResult:
    return BenchResult(device, (measured((1.0, 1.0)),), {"parity": {"a": {}}})


class Watch:
    """A `measure` that records which devices are measured beside one another."""

    def __init__(self, act: Callable[[FleetDevice], None] = lambda device: None) -> None:
        self.act, self.order, self.beside = act, list[str](), set[frozenset[str]]()
        self._now: set[str] = set()
        self._lock = threading.Lock()

    def __call__(
        self, device: FleetDevice, tell: Callable[[str], None], share: Callable[[float], None]
    ) -> Any:
        with self._measuring(device.name):
            tell("block 1")
            self.act(device)
            share(0.5)
            return found(device.kind)

    @contextmanager
    def _measuring(self, name: str) -> Iterator[None]:
        with self._lock:
            self.order.append(name)
            self._now.add(name)
            self.beside.add(frozenset(self._now))
        try:
            yield
        finally:
            with self._lock:
                self._now.remove(name)


def run(
    watch: Watch, *devices: FleetDevice, at_once: bool = False
) -> tuple[bool, tuple[Outcome, ...], list[str]]:
    said: list[str] = []
    fleet = Fleet(
        devices, watch, lambda name, stage: said.append(f"{name}: {stage}"), lambda name, share: None
    )
    return fleet.run(at_once=at_once), fleet.outcomes, said


def test_one_after_the_other_in_the_order_of_the_file() -> None:
    watch = Watch()
    whole, outcomes, said = run(watch, *ALL)
    assert whole and watch.order == [device.name for device in ALL]
    assert {len(together) for together in watch.beside} == {1}
    assert [one.device for one in outcomes] == [*ALL] and all(one.complete for one in outcomes)
    assert said[:2] == ["cpu: block 1", "cpu: measured"]


def test_at_once_are_other_machines_alone() -> None:
    both = threading.Barrier(2)

    def meet(device: FleetDevice) -> None:
        if device in (PI, NANO):
            both.wait(SOON_S)

    watch = Watch(meet)
    whole, outcomes, _ = run(watch, *ALL, at_once=True)
    assert whole and [one.device for one in outcomes] == [*ALL]
    assert frozenset({"pi", "nano"}) in watch.beside
    assert not any({"pi", "pi-2"} <= together for together in watch.beside), "one board"
    assert all(len(together) == 1 for together in watch.beside if together & {"cpu", "tab", "local"})
    assert watch.order[-3:] == ["cpu", "tab", "local"], "this machine when it has nothing else to do"


@pytest.mark.parametrize("at_once", [False, True])
def test_a_device_that_fails_is_an_outcome_with_its_reason(at_once: bool) -> None:
    lost = LostError("pi was lost")
    lost.partial = found("ssh")
    errors = {
        "pi": lost,
        "nano": ParityError("other logits"),
        "cpu": TargetError("no\n  threads"),
        "tab": OSError(28, "full"),
    }

    def fail(device: FleetDevice) -> None:
        if device.name in errors:
            raise errors[device.name]

    whole, outcomes, said = run(Watch(fail), *ALL, at_once=at_once)
    by_name = {one.device.name: one for one in outcomes}
    assert whole and [name for name, one in by_name.items() if one.complete] == ["pi-2", "local"]
    assert by_name["pi"].reason == "pi was lost" and by_name["pi"].result is lost.partial
    assert by_name["cpu"].reason == "no threads" and by_name["cpu"].result is None
    assert by_name["nano"].reason == "other logits" and "full" in by_name["tab"].reason
    assert "nano: dropped out: other logits" in said


def test_a_bug_is_no_reason() -> None:
    def fail(device: FleetDevice) -> None:
        raise ZeroDivisionError

    for at_once in (False, True):
        with pytest.raises(ZeroDivisionError):
            run(Watch(fail), PI, at_once=at_once)


def test_an_interrupt_keeps_what_was_measured() -> None:
    def interrupt(device: FleetDevice) -> None:
        if device is PI:
            raise KeyboardInterrupt

    whole, outcomes, _ = run(Watch(interrupt), HERE_1, PI, NANO)
    assert not whole
    assert [one.reason for one in outcomes] == ["", INTERRUPTED, INTERRUPTED]
    assert outcomes[0].result is not None


def test_an_interrupt_ends_those_at_once_at_their_next_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal is the main thread's, which waits for the others."""
    from morvit_deploy.measuring.fleet import running

    begun = threading.Event()

    def interrupted(waited: Any) -> None:
        begun.wait(SOON_S)
        raise KeyboardInterrupt

    class Long(Watch):
        def __call__(self, device: FleetDevice, tell: Any, share: Any) -> Any:
            self.order.append(device.name)
            begun.set()
            end = time.monotonic() + SOON_S
            while time.monotonic() < end:
                tell("block 1")
                time.sleep(0.01)

    monkeypatch.setattr(running, "wait", interrupted)
    watch = Long()
    before = time.monotonic()
    whole, outcomes, _ = run(watch, PI, ALSO_PI, HERE_1, at_once=True)
    assert time.monotonic() - before < SOON_S / 2
    assert not whole and [one.reason for one in outcomes] == [INTERRUPTED] * 3
    assert watch.order == ["pi"], "no other device is begun"
