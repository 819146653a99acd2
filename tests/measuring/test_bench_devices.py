"""`bench` from Python: every device is reached by one function, and told what it does not have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import morvit_deploy as md
from morvit_deploy.measuring import bench as measuring
from morvit_deploy.measuring.apple import bench as apple
from morvit_deploy.measuring.apple.dispatching import UNITS
from morvit_deploy.measuring.browser import bench as browser
from morvit_deploy.measuring.core.devices import (
    DEVICES,
    NOT_APPLE,
    ONLY_APPLE,
    ONLY_BROWSER,
    ONLY_CUDA,
    Device,
)
from morvit_deploy.measuring.cuda import bench as cuda
from morvit_deploy.remote.host import Host
from morvit_deploy.timing.loop import BLOCKS, STARTS, WARMUP

GIVEN: dict[str, Any] = {
    "against": "other",
    "threads": 2,
    "batch": 2,
    "starts": 2,
    "compute_units": ["cpu"],
    "phone": "mine",
    "team": "TEAM",
    "browser": "chromium",
    "tf32": True,
}


class Called(Exception):
    """What a device's own function was called with."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> None:
    def record(*given: Any, **keywords: Any) -> None:
        raise Called(given, keywords)

    for module, name in (
        *((measuring, "bench_here"), (measuring, "bench_remote")),
        *((apple, "bench_apple"), (cuda, "bench_cuda"), (browser, "bench_browser")),
    ):
        monkeypatch.setattr(module, name, record)


def called(bundles: Any, **keywords: Any) -> tuple[Any, dict[str, Any]]:
    with pytest.raises(Called) as caught:
        md.bench(bundles, **keywords)
    given, named = caught.value.args
    return given, named


@pytest.mark.usefixtures("calls")
def test_this_machine() -> None:
    (request,), _ = called(["a", "b"], against="c", images="photos", batch=4, threads=2, runs=20)
    assert request.folders == (Path("a"), Path("b"), Path("c")) and request.threads == 2
    assert (request.source.images, request.source.batch) == ("photos", 4)
    amount = request.amount
    assert (amount.runs, amount.blocks, amount.warmup, amount.starts) == (20, BLOCKS, WARMUP, STARTS)


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("host", ["user@board", Host("user@board")], ids=["text", "Host"])
@pytest.mark.parametrize("device", ["jetson", "ssh"])
def test_a_board(device: str, host: Any) -> None:
    (request, place, readers), _ = called("a", device=device, host=host, warmup=0)
    assert place == Host("user@board") and readers == DEVICES[device].readers
    assert request.device == device and request.amount.warmup == 0


@pytest.mark.usefixtures("calls")
def test_the_gpu() -> None:
    (folders,), named = called("a", device="cuda", batch=8, blocks=2)
    assert folders == (Path("a"),) and named["batches"] == [8] and named["blocks"] == 2
    assert called("a", device="cuda")[1]["batches"] is None


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("given", ["chromium", md.Browser("chromium"), None], ids=["text", "Browser", "any"])
def test_a_browser(given: Any) -> None:
    (request, place), _ = called("a", device="browser", browser=given, threads=2)
    assert place == (md.Browser() if given is None else md.Browser("chromium")) and request.threads == 2


@pytest.mark.usefixtures("calls")
def test_apple() -> None:
    (folder, wish), _ = called("a", device="iphone", phone="mine", team="TEAM", compute_units=["cpu"])
    assert folder == Path("a") and (wish.phone, wish.team, wish.units) == ("mine", "TEAM", ("cpu",))
    assert called("a", device="mac")[0][1].units == tuple(UNITS)
    with pytest.raises(md.TargetError, match="got 2 bundles, expected one"):
        md.bench(["a", "b"], device="mac")


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("device", ["cpu", "cuda", "mac", "iphone", "ssh", "browser"])
def test_keywords_that_a_device_does_not_have(device: Any, name: str) -> None:
    keywords: dict[str, Any] = {name: GIVEN[name]} | ({"host": "user@board"} if device == "ssh" else {})
    if name not in DEVICES[device].lacks:
        called("a", device=device, **keywords)
        return
    with pytest.raises(md.ConfigError, match=f"{name}: device '{device}' does not have this"):
        md.bench("a", device=device, **keywords)


def test_what_devices_lack_are_keywords() -> None:
    assert {*ONLY_APPLE, *ONLY_BROWSER, *NOT_APPLE} == {*GIVEN}
    assert Device().lacks == (*ONLY_APPLE, *ONLY_CUDA, *ONLY_BROWSER)
