"""`bench_fleet`: what is refused before anything is measured, the joined result, and its report."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_page import FakePage, stand_in_runtime
from measurements import measured
from table_checks import problems

import morvit_deploy as md
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cuda.results import CudaResult, Timing
from morvit_deploy.measuring.fleet import fleet
from morvit_deploy.measuring.fleet.device import FleetDevice
from morvit_deploy.measuring.fleet.result import FleetResult, Row, label
from morvit_deploy.measuring.fleet.running import INTERRUPTED, Outcome
from morvit_deploy.timing.samples import Block

CPU, PI = FleetDevice("desk", "cpu", {}), FleetDevice("pi", "ssh", {"host": "u@pi"})
FAST, SLOW = (1.0, 1.1, 1.2), (2.0, 2.2, 2.4)
QUICK: dict[str, Any] = {"threads": 1, "runs": 10, "blocks": 2, "warmup": 1, "starts": 1}


def outcome(device: FleetDevice, *bundles: tuple[str, tuple[float, ...]], reason: str = "") -> Outcome:
    lanes = tuple(measured(ms, ms, bundle=f"build/{name}") for name, ms in bundles)
    result = BenchResult(device.kind, lanes, {"parity": {"x": {}}}, ("hot",)) if lanes else None
    return Outcome(device, result, reason)


def joined(*outcomes: Outcome, bundles: int = 2, interrupted: bool = False) -> FleetResult:
    return FleetResult(("build/a", "build/b")[:bundles], outcomes, interrupted)


@pytest.fixture
def no_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A played page does not load onnxruntime-web."""
    stand_in_runtime(tmp_path / "ort", monkeypatch)


BOTH = ("a", FAST), ("b", SLOW)


def test_rows_are_relative_to_the_device_s_first_bundle() -> None:
    result = joined(outcome(CPU, *BOTH), outcome(PI, reason="no host; give one"))
    a, b, pi = result.rows
    assert (a.device, a.bundle, a.p50_ms, a.ratio, a.parity, a.state) == (
        "desk",
        "a",
        1.1,
        1.0,
        True,
        "measured",
    )
    assert b.ratio == pytest.approx(0.5) and b.images_per_s == pytest.approx(1000 / 2.2)
    assert pi == Row("pi", "", "no host; give one")
    assert result.dropped == (result.outcomes[1],) and result.warnings == ("desk: hot",)
    with pytest.raises(md.CheckFailed, match=r"1 of 2 devices dropped out:\n  - pi: no host; give one"):
        result.check()
    joined(outcome(CPU, *BOTH)).check()


@pytest.mark.parametrize(
    ("outcomes", "bundles", "expected"),
    [
        ([outcome(CPU, *BOTH)], 2, "a is the fastest on desk (1.10 ms an image, 2.00× as fast as b)."),
        (
            [outcome(CPU, *BOTH), outcome(PI, ("a", SLOW), ("b", FAST))], 2,
            "a is the fastest on desk (1.10 ms an image, 2.00× as fast as b); b is the fastest on pi (1.10 ms an "
            "image, 2.00× as fast as a).",
        ),
        ([outcome(CPU, ("a", FAST), ("b", FAST))], 2, "On desk a and b do not differ beyond the scatter."),
        (
            [outcome(CPU, ("a", FAST)), outcome(PI, ("a", SLOW))], 1,
            "a takes 1.10 ms an image on desk and 2.20 ms an image on pi (medians).",
        ),
        (
            [outcome(CPU, *BOTH), outcome(PI, reason="no host; give one")], 2,
            "a is the fastest on desk (1.10 ms an image, 2.00× as fast as b). pi (no host) dropped out.",
        ),
        ([outcome(PI, reason="gone")], 2, "No device was measured. pi (gone) dropped out."),
        (
            [outcome(PI, ("a", FAST), reason="lost")], 2,
            "a is the fastest on pi (1.10 ms an image). pi (lost) dropped out.",
        ),
    ],
)  # fmt: skip  # a table
def test_the_conclusion(outcomes: list[Outcome], bundles: int, expected: str) -> None:
    report = joined(*outcomes, bundles=bundles).report()
    assert report.result == expected
    assert not [found for part in report.parts for found in problems(part, 80)]  # type: ignore[arg-type]


def test_scatter_hides_a_difference() -> None:
    noisy = (measured((1.0,), (3.0,), (1.0,), bundle="a"), measured((2.0,), (1.5,), (1.2,), bundle="b"))
    one = Outcome(CPU, BenchResult("cpu", noisy, {}))
    assert len(joined(one).fastest(one)) == 2


def test_figures_before_a_loss_are_shown_with_the_reason() -> None:
    report = joined(outcome(PI, ("a", FAST), reason="pi was lost")).report()
    (row,) = report.parts[0].rows  # type: ignore[union-attr]
    assert row[0] == "pi" and row[2] == "1.10" and row[-1] == "parity ok, then: pi was lost"


def test_the_picture_has_a_bar_for_each_bundle_of_each_device() -> None:
    picture = joined(outcome(CPU, *BOTH), outcome(PI, *BOTH)).report().picture
    assert picture is not None and picture.content is not None
    drawn = picture.content.decode()
    assert drawn.count("<rect") == 1 + 4 and drawn.count("#1f6fb4") == 2
    assert joined(outcome(CPU, ("a", FAST)), bundles=1).report().picture is None, "nothing to compare"


def test_the_json_has_each_device_s_result() -> None:
    result = joined(outcome(CPU, *BOTH), outcome(PI, reason="gone"), interrupted=True)
    found = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert found["format"] == "morvit-fleet/1" and found["interrupted"] and len(found["rows"]) == 3
    desk, pi = found["devices"]
    assert desk["result"]["bundles"][0]["blocks"][0]["ms"] == list(FAST) and desk["state"] == "measured"
    assert (pi["host"], pi["state"], pi["reason"], pi["result"]) == ("u@pi", "not measured", "gone", None)
    assert repr(result) == "FleetResult(desk measured, pi gone)"


def test_parts_of_a_gpu_are_rows() -> None:
    def part(bundle: str, name: str, ms: tuple[float, ...], transfers: bool = True) -> Timing:
        how: dict[str, Any] = {"runtime": "TensorRT", "cuda_graph": True, "transfers": transfers}
        return Timing(name=name, batch=1, blocks=(Block(ms),), bundle=bundle, part=name, **how)

    parts = (
        part("build/a", "model", FAST),
        part("build/a", "model", FAST, False),
        part("build/b", "model", SLOW),
    )
    gpu = Outcome(
        FleetDevice("gpu", "cuda", {}), CudaResult("cuda", parts, {"timed": "by events", "parity": {"x": {}}})
    )
    rows = joined(gpu).rows
    assert [(row.bundle, row.ratio) for row in rows] == [("a", 1.0), ("b", pytest.approx(0.5))]
    assert "gpu: parts" in [part.title for part in joined(gpu).report().parts]
    stem = part("build/b", "stem", FAST)
    assert label(stem) == "b (stem)"


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `bench` was called with, device by device."""
    calls: list[dict[str, Any]] = []

    def bench(folders: Any, **how: Any) -> BenchResult:
        calls.append(how)
        return BenchResult(how["device"], (measured(FAST),), {})

    monkeypatch.setattr(fleet, "bench", bench)
    return calls


def test_each_device_has_its_own_keywords(tiny_bundle: Path, called: list[dict[str, Any]]) -> None:
    devices: dict[str, Any] = {
        "desk": {"threads": 2},
        "pi": {"device": "ssh", "host": "pi", "blocks": 3},
        "tab": {"device": "browser", "browser": md.Browser(port=8000)},
    }
    result = md.bench_fleet(tiny_bundle, devices)
    assert [(how["device"], how.get("threads"), how.get("host")) for how in called] == [
        ("cpu", 2, None), ("ssh", None, "pi"), ("browser", None, None),
    ]  # fmt: skip  # a list of names
    assert called[1]["blocks"] == 3 and called[2]["browser"].port == 8000
    assert [one.device.name for one in result.outcomes] == [*devices]


def test_a_page_that_nobody_opens(
    tiny_bundle: Path, called: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PATIENCE_S", 0.0)
    md.bench_fleet(tiny_bundle, {"phone": {"device": "browser", "browser": md.Browser(listen=True)}})
    with pytest.raises(md.TargetError, match="nobody opened the page within 0 minutes"):
        called[0]["browser"].waiting()


@pytest.mark.parametrize(
    ("devices", "problem"),
    [
        ({}, "got no device"),
        ({"a": {"thread": 1}}, r"device 'a' \(cpu\): thread: unknown option; did you mean threads"),
        ({"a": {"host": "pi"}}, r"device 'a' \(cpu\): host: unknown option"),
        ({"a": {"images": "x"}}, "images: unknown option"),
        ({"a": {"device": "toaster"}}, "got device 'toaster'"),
        ({"a": {"device": "mac"}}, "measures one bundle at a time"),
        ({"a": {"device": "ssh"}}, "reached over SSH"),
        ({"a": {"runs": 3}}, "runs: got 3 runs a block"),
        ({"a": {"blocks": 0}}, "got 0 blocks"),
        ({"a b": {}}, "name: got 'a b'"),
    ],
    ids=str,
)
def test_refused_before_anything_is_measured(
    tiny_bundle: Path, called: list[dict[str, Any]], devices: Any, problem: str
) -> None:
    with pytest.raises(md.MorvitError, match=problem):
        md.bench_fleet(tiny_bundle, devices)
    assert not called


def test_bundles_and_images_that_cannot_be_used(
    tiny_bundle: Path, tmp_path: Path, called: list[dict[str, Any]]
) -> None:
    def refused(error: type[Exception], problem: str, bundles: Any, **how: Any) -> None:
        with pytest.raises(error, match=problem):
            md.bench_fleet(bundles, {"desk": {}, "pi": {"device": "ssh", "host": "pi"}}, **how)

    refused(md.BundleError, "nothing/manifest.json: No such file", [tiny_bundle, tmp_path / "nothing"])
    refused(md.ConfigError, "twice", [tiny_bundle, tiny_bundle])
    refused(md.TargetError, "got no bundle", [])
    refused(md.TargetError, "--batch dynamic", tiny_bundle, batch=4)
    refused(md.MorvitError, "empty", tiny_bundle, images=tmp_path / "empty")
    refused(TypeError, "did you mean at_once", tiny_bundle, at_onc=True)
    assert not called


def test_a_bundle_that_a_kind_does_not_run(
    tiny_bundle: Path, copied_bundle: Path, called: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORVIT_TARGETS", "other_target:OTHER")
    place = copied_bundle / "manifest.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"target": "other", "target_form": {}}))
    with pytest.raises(md.TargetError, match=r"device 'desk': .* is for other, and --device cpu runs onnx"):
        md.bench_fleet([copied_bundle], {"desk": {}, "pi": {"device": "ssh", "host": "pi"}})
    assert not called


def test_an_interrupt_carries_what_was_measured(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bench(folders: Any, **how: Any) -> BenchResult:
        if how["device"] == "ssh":
            raise KeyboardInterrupt
        return BenchResult("cpu", (measured(FAST),), {})

    monkeypatch.setattr(fleet, "bench", bench)
    with pytest.raises(KeyboardInterrupt) as stopped:
        md.bench_fleet(tiny_bundle, {"desk": {}, "pi": {"device": "ssh", "host": "pi"}})
    partial = stopped.value.partial  # type: ignore[attr-defined]
    assert [one.reason for one in partial.outcomes] == ["", INTERRUPTED] and partial.interrupted
    assert "Ctrl-C ended it early." in partial.report().result


def test_a_page_for_real(tiny_bundle: Path, no_runtime: None) -> None:
    """A played page, as a phone would open it."""
    page = FakePage(tiny_bundle)
    how: dict[str, Any] = QUICK | {"device": "browser", "browser": md.Browser(show=page.open)}
    (row,) = md.bench_fleet(tiny_bundle, {"phone": how}).rows
    page.join(5)
    assert row.parity and row.p50_ms == 2.0


def test_a_page_that_is_never_opened_drops_out(
    tiny_bundle: Path, no_runtime: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet, "PATIENCE_S", 0.0)
    how: dict[str, Any] = {"device": "browser", "browser": md.Browser(show=lambda invitation: None)}
    result = md.bench_fleet(tiny_bundle, {"phone": how})
    assert [one.reason for one in result.dropped] == ["nobody opened the page within 0 minutes"]


def test_this_machine_for_real(tiny_bundle: Path, exported: Callable[..., Path]) -> None:
    said: list[str] = []
    result = md.bench_fleet(
        tiny_bundle, {"desk": QUICK}, tell=lambda name, stage: said.append(f"{name}: {stage}")
    )
    (row,) = result.rows
    assert row.parity and row.ratio == 1.0 and row.state == "measured"
    assert any(line.startswith("desk: block 2 of 2") for line in said)
    titles = [part.title for part in result.report().parts]
    assert titles[0] == "Devices" and {"Start", "desk: conditions"} <= {*titles}
