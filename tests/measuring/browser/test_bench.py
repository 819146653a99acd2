"""The loop with a page: a played one for what goes wrong, and headless Chromium."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from bucket_plans import EXPERT, threshold_ladder
from chromium import find_chromium
from fake_page import CHROME, FakePage, Spoil, fetch, stand_in_runtime
from table_checks import problems
from tiny_models import make_config
from typer.testing import CliRunner

import morvit_deploy as md
from morvit_deploy.cli import app
from morvit_deploy.measuring.browser import program as programs
from morvit_deploy.measuring.browser import runtime
from morvit_deploy.measuring.browser.options import Browser, Invitation
from morvit_deploy.measuring.browser.program import Program, started
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.timing.loop import MIN_RUNS

QUICK: dict[str, Any] = {"runs": MIN_RUNS, "blocks": 2, "warmup": 1, "starts": 1}
TOLERANCE = 1e-4  # × max(1, max |logit|), as everywhere: float32 round-off over the layers


@pytest.fixture
def no_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A played page does not load onnxruntime-web."""
    stand_in_runtime(tmp_path / "ort", monkeypatch)


def played(
    bundle: Path, spoil: Spoil | None = None, backend: Any = "wasm", **about: Any
) -> tuple[BenchResult, FakePage]:
    page = FakePage(bundle, about, spoil)
    result = md.bench(bundle, device="browser", browser=Browser(show=page.open, backend=backend), **QUICK)
    page.join(5)
    return result, page


@pytest.mark.usefixtures("no_runtime")
class TestPlayed:
    def test_a_phone(self, tiny_bundle: Path) -> None:
        result, page = played(
            tiny_bundle, user_agent=CHROME.replace("X11; Linux x86_64", "Linux; Android 15")
        )
        (one,) = result.measured
        assert one.samples_ms == [2.0] * 20 and one.starts[0].cold_start_ms == 30.0
        known = result.conditions
        assert known["machine"]["system"] == "Linux; Android 15" and known["load_average_before"] is None
        assert known["browser"]["runs_per_sample"] == {str(tiny_bundle): 3}, (
            "50 ticks of 0.1 ms, runs of 2 ms"
        )
        assert known["browser"]["timer_ms"] == 0.1 and known["threads"] == 2
        assert known["versions"]["onnxruntime-web"] == "1.30.0" and not result.warnings
        assert all(block.others_percent is None for block in one.blocks)
        json.dumps(result.as_dict(), allow_nan=False)
        assert not [found for part in result.report().parts for found in problems(part, 80)]
        text = result.report().html()
        assert "Start of a new worker of the page" in text and "not readable" in text
        last = page.seen[-1]
        assert last["good"] and last["text"] == "Done. One run of 1 image takes 2.00\u00a0ms (median)."
        assert any(message["do"] == "stage" for message in page.seen)

    def test_two_bundles_take_turns(self, tiny_bundle: Path, copied_bundle: Path) -> None:
        page = FakePage(tiny_bundle)
        result = md.bench(
            tiny_bundle, against=copied_bundle, device="browser", browser=Browser(show=page.open), **QUICK
        )
        runs = [
            message["worker"]
            for message in page.seen
            if message["do"] == "run" and message["runs"] == MIN_RUNS
        ]
        assert runs == [runs[0], runs[1]] * 2 and runs[0] != runs[1]
        assert result.ratios[0].median == 1

    def test_other_logits_are_not_measured(self, tiny_bundle: Path) -> None:
        def spoil(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
            assert request["do"] != "run", "nothing is timed"
            rows = [[None, *row[1:]] for row in reply.get("answers", [])]  # NaN in JSON of a page
            return reply | ({"answers": rows} if rows else {})

        with pytest.raises(
            md.ParityError, match=r"other logits in the browser .*largest difference: not finite"
        ):
            played(tiny_bundle, spoil)

    def test_other_features_are_not_measured(self, exported: Callable[..., Path]) -> None:
        bundle = exported(make_config(), output="features")
        result, _ = played(bundle)
        (parity,) = result.conditions["parity"].values()
        assert parity["apart"] == 0 and parity["snr_db"] is None and "class_flips" not in parity  # equal

        def negated(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
            rows = [[-value for value in row] for row in reply.get("answers", [])]
            return reply | ({"answers": rows} if rows else {})

        with pytest.raises(md.ParityError, match=r"other numbers in the browser .*ratio is -6\.0 dB"):
            played(bundle, negated)

    def test_a_page_that_is_closed_in_the_middle(self, tiny_bundle: Path, tmp_path: Path) -> None:
        def spoil(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any] | None:
            return None if request["do"] == "run" else reply

        with pytest.raises(
            md.LostError, match=r"the page was closed while it was running.*nothing was written"
        ) as caught:
            played(tiny_bundle, spoil)
        assert caught.value.exit_status == 1 and caught.value.partial is None

    def test_what_fails_in_the_page(self, tiny_bundle: Path) -> None:
        def spoil(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
            said = "the browser ran out of memory while loading model.onnx: the bundle has 4000 MB"
            return {"error": said, "kind": "BundleError"} if request["do"] == "load" else reply

        with pytest.raises(md.BundleError, match=r" in Chrome 156.0.0.0: the browser ran out of memory"):
            played(tiny_bundle, spoil)

    def test_a_page_in_the_background(self, tiny_bundle: Path) -> None:
        def spoil(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
            return reply | {"hidden": request["do"] == "run"}

        assert "in the background" in played(tiny_bundle, spoil)[0].warnings[-1]

    def test_browsers_that_lack_something(self, tiny_bundle: Path) -> None:
        with pytest.raises(md.TargetError, match=r"Chrome 156.0.0.0 has no WebAssembly SIMD, and onnx"):
            played(tiny_bundle, simd=False)
        with pytest.raises(md.TargetError, match=r"offers no WebGPU adapter, which needs a page from"):
            played(tiny_bundle, backend="webgpu", secure=False)

    def test_a_second_page_is_refused_meanwhile(self, tiny_bundle: Path) -> None:
        seen = []

        def spoil(request: dict[str, Any], reply: dict[str, Any]) -> dict[str, Any]:
            if request["do"] == "run":
                seen.append(fetch(page.url)[0])
            return reply

        page = FakePage(tiny_bundle, spoil=spoil)
        md.bench(tiny_bundle, device="browser", browser=Browser(show=page.open), **QUICK)
        assert set(seen) == {403}

    def test_options_of_another_device(self, tiny_bundle: Path) -> None:
        for words, message in (
            (("--listen", "--port", "80"), "--listen, --port: for --device browser; got device 'cpu'"),
            (("--device", "browser", "--host", "me@phone"), "--device browser is not reached over SSH"),
            (("--device", "browser", "--phone", "mine"), "--phone: for --device mac or iphone"),
            (("--device", "browser", "--browser", "lynx"), "browser 'lynx' is not installed"),
            (
                ("--device", "browser", "--browser", "chromium", "--listen"),
                "--listen and --certificate are for another",
            ),
            (("--device", "chrome"), "did you mean 'browser'?"),
        ):
            ended = CliRunner().invoke(app, ["bench", str(tiny_bundle), *words])
            assert ended.exit_code == 2 and message in " ".join(ended.stderr.split()), ended.stderr
            assert ended.stderr.count("error:") == 1 and ended.stdout == ""

    def test_a_program_that_is_no_browser(self, tiny_bundle: Path, tmp_path: Path) -> None:
        program = tmp_path / "browser"
        program.write_text("#!/bin/sh\necho cannot open display >&2\nexit 3\n")
        program.chmod(0o755)
        with pytest.raises(md.TargetError, match=r"(?s)ended with status 3 before it.*cannot open display"):
            md.bench(tiny_bundle, device="browser", browser=str(program), **QUICK)


@pytest.fixture(scope="module")
def chromium() -> str:
    """Skips where there is no Chromium, or no onnxruntime-web and no network to download it."""
    path = find_chromium()
    if path is None:
        pytest.skip("chromium is not installed")
    try:
        runtime.find_runtime(None, "wasm", lambda stage: None)
    except md.TargetError as error:
        pytest.skip(str(error))
    return path


@pytest.fixture(scope="module")
def measured(chromium: str, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `bench --json -o FILE` prints, measured in Chromium."""
    file = tmp_path_factory.mktemp("browser") / "result.json"
    options = [f"--{name}={value}" for name, value in QUICK.items()]
    where = ["--device", "browser", "--browser", chromium, "--threads", "2", "--json", "-o", str(file)]
    ended = CliRunner().invoke(app, ["bench", str(tiny_bundle), *where, *options])
    assert ended.exit_code == 0, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    assert json.loads(file.read_text()).keys() - found.keys() == {"report"}  # for `morvit-deploy report`
    return found


def test_chromium_measures_as_other_devices_do(measured: dict[str, Any]) -> None:
    (one,) = measured["bundles"]
    assert measured["format"] == "morvit-bench/1" and measured["device"] == "browser"
    assert [len(block["ms"]) for block in one["blocks"]] == [MIN_RUNS] * 2 and one["latency_ms"]["p50"] > 0
    assert one["cold_start_ms"] >= one["load_ms"] > 0 and one["memory_mib"]["webassembly"] >= 16


@pytest.mark.parametrize("output", ["features", "tokens"])
def test_chromium_measures_arrays(chromium: str, exported: Callable[..., Path], output: str) -> None:
    """Of a ladder whose images overflow, too."""
    bundle = exported(EXPERT, plan=threshold_ladder(), output=output)
    result = md.bench(bundle, device="browser", browser=chromium, **QUICK)
    (parity,) = result.conditions["parity"].values()
    assert parity["images"] == 16 and parity["apart"] == 0 and parity["snr_db"] > 100
    assert result.measured[0].samples_ms and result.measured[0].mix is not None


def test_chromium_agrees_and_says_what_it_is(measured: dict[str, Any]) -> None:
    known = measured["conditions"]
    (parity,) = known["parity"].values()
    assert parity["images"] == 16 and parity["apart"] == 0 and parity["max_abs"] <= parity["tolerance"]
    browser = known["browser"]
    assert (browser["backend"], browser["simd"], browser["headless"]) == ("wasm", True, True)
    assert browser["cross_origin_isolated"] and browser["threads"] and known["threads"] == 2
    assert browser["version"].split(".")[0].isdigit() and browser["name"] in known["versions"]
    assert browser["timer_ms"] < 1 and all(
        block["others_percent"] >= 0 for block in measured["bundles"][0]["blocks"]
    )


@pytest.fixture
def opened(chromium: str) -> Iterator[Callable[..., Browser]]:
    """Browsers that are started when the URL is shown, as a person opens it."""
    with ExitStack() as stack:

        def browser(keep: Callable[[Program], None], host: str = "127.0.0.1", *flags: str) -> Browser:
            def show(invitation: Invitation) -> None:
                url = invitation.urls[0].replace("127.0.0.1", host)
                keep(stack.enter_context(started(chromium, url, flags)))

            return Browser(show=show)

        yield browser


def test_an_adaptive_bundle_over_http_from_another_host(
    opened: Callable[..., Browser], exported: Callable[..., Path]
) -> None:
    """As a phone opens it: the page is not isolated and has no threads, and is measured all the same."""
    bundle = exported(EXPERT, plan=threshold_ladder())
    browser = opened(lambda program: None, "phone.test", "--host-resolver-rules=MAP phone.test 127.0.0.1")
    result = md.bench(bundle, device="browser", browser=browser, **QUICK)
    known = result.conditions["browser"]
    assert not known["cross_origin_isolated"] and not known["threads"] and result.conditions["threads"] == 1
    assert any("measured with one thread" in sentence for sentence in result.warnings)
    (one,) = result.measured
    buckets = {name for block in one.blocks for run in block.bucket for name in run}
    assert one.mix is not None and buckets <= {bucket.name for bucket in one.mix.plan.buckets}
    assert set(one.mix.alone) == {bucket.name for bucket in one.mix.plan.buckets}


def test_chromium_that_is_killed_in_the_middle(
    opened: Callable[..., Browser], tiny_bundle: Path, tmp_path: Path
) -> None:
    running: list[Program] = []
    killer = threading.Thread(target=lambda: running[0].close())

    def tell(stage: str) -> None:
        if stage.startswith("block 1"):
            killer.start()

    long = QUICK | {"runs": 2000, "blocks": 50}
    with pytest.raises(md.LostError, match="the page was closed while it was running"):
        md.bench(tiny_bundle, device="browser", browser=opened(running.append), tell=tell, **long)
    killer.join()


def test_installed_browsers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs.shutil, "which", lambda name: "/bin/edge" if name == "msedge" else None)
    assert programs.find_program("Edge") == "/bin/edge"
    with pytest.raises(md.TargetError, match=r"'chrome' is not installed; .*\(found on this machine: edge\)"):
        programs.find_program("chrome")
