"""Pure functions: names of browsers, samples of coarse clocks, manifests of one bucket."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bucket_plans import EXPERT, threshold_ladder
from fake_page import CHROME

from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.errors import ConfigError
from morvit_deploy.measuring.browser.about import is_mobile, machine, named, system
from morvit_deploy.measuring.browser.files import alone_manifest
from morvit_deploy.measuring.browser.options import Browser
from morvit_deploy.measuring.browser.worker import MOST_GROUPED, TICKS, grouped

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
    "Mobile/15E148 Safari/604.1"
)
FIREFOX = "Mozilla/5.0 (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0"
DETAILS: dict[str, Any] = {
    "fullVersionList": [
        {"brand": "Not;A=Brand", "version": "8.0.0.0"},
        {"brand": "Chromium", "version": "156.0.8078.108"},
        {"brand": "Google Chrome", "version": "156.0.8078.110"},
    ],
    "platform": "Android", "platformVersion": "16.0.0", "architecture": "", "model": "Pixel 9",
}  # fmt: skip


@pytest.mark.parametrize(
    ("agent", "details", "name"),
    [
        (CHROME, DETAILS, ("Google Chrome", "156.0.8078.110")),
        (CHROME, {"fullVersionList": DETAILS["fullVersionList"][:2]}, ("Chromium", "156.0.8078.108")),
        (CHROME, None, ("Chrome", "156.0.0.0")),
        (CHROME + " Edg/155.0.1.2", None, ("Edge", "155.0.1.2")),
        (CHROME.replace("Chrome", "SamsungBrowser/28.0 Chrome"), None, ("Samsung Internet", "28.0")),
        (IPHONE, None, ("Safari", "18.5")),
        (IPHONE.replace("Version/18.5", "CriOS/140.0"), None, ("Chrome", "140.0")),
        (FIREFOX, None, ("Firefox", "140.0")),
        ("", None, ("unknown", "")),
    ],
)
def test_names_of_browsers(agent: str, details: Any, name: tuple[str, str]) -> None:
    assert named(agent, details) == name


def test_what_a_page_knows_of_its_machine() -> None:
    assert system(CHROME, DETAILS) == "Android 16.0.0 Pixel 9"
    assert system(IPHONE, None) == "iPhone; CPU iPhone OS 18_5 like Mac OS X"
    assert is_mobile(IPHONE) and is_mobile(FIREFOX) and not is_mobile(CHROME)
    assert machine({}) == {
        "system": "unknown", "processor": "unknown", "cores": None, "memory_gib": None, "instruction_sets": [],
        "python": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("run_ms", "tick_ms", "group"), [(30.0, 0.1, 1), (0.4, 0.005, 1), (0.1, 0.1, 50), (3.0, 1.0, 20)], ids=str
)
def test_short_runs_are_grouped(run_ms: float, tick_ms: float, group: int) -> None:
    """As a worker does it: until a sample has enough ticks, and not many more than needed."""
    found = 1
    while (more := grouped(found * run_ms // tick_ms * tick_ms, found, tick_ms)) > found:
        found = more
    assert found * run_ms >= TICKS * tick_ms * 0.98 and group <= found <= 2 * group


def test_a_clock_that_stands_still_ends() -> None:
    assert grouped(0.0, MOST_GROUPED, 1.0) == MOST_GROUPED


def test_one_bucket_as_a_bundle(exported: Callable[..., Path]) -> None:
    manifest = open_manifest(exported(EXPERT, plan=threshold_ladder()))
    name = manifest.plan.buckets[0].name
    data = json.loads(alone_manifest(manifest, name, b"graph"))
    assert data["dispatch"] == "single" and [one["name"] for one in data["plan"]["buckets"]] == [name]
    assert [file["path"] for file in data["files"]] == ["model.onnx", "weights.bin"]
    assert data["files"][0]["bytes"] == 5 and set(data) == set(json.loads(manifest.to_json()))
    assert isinstance(manifest, Manifest)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "gpu"}, r"got backend 'gpu', expected wasm or webgpu; did you mean 'webgpu'\?"),
        ({"port": 70000}, "got port 70000, expected 0"),
        ({"program": "chromium", "listen": True}, "--listen and --certificate are for another device"),
    ],
)
def test_options_that_exclude_each_other(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Browser(**options)
