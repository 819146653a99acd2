"""`bench --device jetson` against an sshd on loopback and a made-up Jetson behind it; and its messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_device
import jetson_outputs as outputs
import loopback
import pytest
from bucket_plans import threshold_ladder
from fake_jetson import Board
from lanes import when
from loopback import Loopback
from shipped_bundles import gone
from tiny_models import make_config
from typer.testing import CliRunner

from morvit_deploy.cli import app
from morvit_deploy.errors import BundleError, ConfigError, TargetError
from morvit_deploy.exporters.trt.build_remote import build_on
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core import devices
from morvit_deploy.measuring.cpu.lanes import BundleProcesses
from morvit_deploy.measuring.views import bench_report
from morvit_deploy.remote.host import Host
from morvit_deploy.report import Table

QUICK: dict[str, Any] = {"threads": 1, "runs": 150, "blocks": 3, "warmup": 1, "starts": 1}
LINE = outputs.ORIN_NANO_6.replace("VDD_IN 4556mW/4556mW", "VDD_IN POWERmW/POWERmW")
CONFIG = make_config()


@pytest.fixture
def jetson(board: Board) -> Board:
    """An Orin Nano whose clocks are free."""
    return board


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Loopback]:
    """An sshd where one can be; `device` in its folder is for the agent."""
    (tmp_path / "a board" / "device").mkdir(parents=True)
    if loopback.why_not():
        pytest.skip(loopback.why_not())
    server = Loopback(tmp_path / "a board")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def behind(tmp_path: Path, jetson: Board, server: Loopback) -> Iterator[Callable[..., Host]]:
    """How to reach a made-up Jetson, over SSH; `here` is the same without."""
    jetson.command("tegrastats", fake_device.tegrastats(tmp_path / "mw", LINE))

    def reach(*, here: bool = False, **how: Any) -> Host:
        tree = {"root": str(jetson.root), "commands": str(jetson.commands), "mw": str(tmp_path / "mw")}
        python = fake_device.make_python(tmp_path / f"fakes {here}", **tree | how)
        place = str(server.folder / "device")
        return Host.here(place, str(python)) if here else server.host(folder=place, python=str(python))

    yield reach
    assert gone(server.folder / "device")


@pytest.fixture
def recipe(exported: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """A bundle without engines; a copy to change."""

    def make(**options: Any) -> Path:
        bundle = exported(CONFIG, target="trt", precision="fp32", flavor="tensorrt", **options)
        shutil.copytree(bundle, tmp_path / "bundle")
        return tmp_path / "bundle"

    return make


def test_it_builds_compares_measures_and_tells_of_the_board(
    behind: Callable[..., Host], recipe: Callable[..., Path]
) -> None:
    bundle, heard = recipe(), list[str]()
    before = {path.name for path in (bundle / "build").iterdir()}
    result = bench(bundle, device="jetson", host=behind(), tell=heard.append, **QUICK)
    assert {path.name for path in (bundle / "build").iterdir()} == before, "the bundle here is as it was"
    assert any(stage.startswith("building model: ") for stage in heard), "progress is streamed"
    data = json.loads(json.dumps(result.as_dict()))
    known, (measured,) = data["conditions"], data["bundles"]
    assert known["versions"]["tensorrt"] == fake_device.VERSION
    assert known["parity"][str(bundle)]["apart"] == 0
    assert known["engines"][str(bundle)]["engines"][0]["name"] == "model"
    assert len(measured["blocks"]) == 3 and all(len(block["ms"]) == 150 for block in measured["blocks"])
    read = known["device_conditions"]
    assert read["before"]["jetson"]["jetson"]["jetpack"] == "6.2"
    assert read["before"]["jetson"]["power_mode"]["name"] == "25W"
    assert read["after"]["jetson"]["clocks"]["locked"] is False
    energy = measured["energy"]
    assert energy["images"] == 3 * 151 and energy["source"] == "tegrastats" and energy["rails"] == ["VDD_IN"]
    assert energy["reason"] is None
    assert energy["idle_mw"] == fake_device.IDLE_MW
    expected_mj = (fake_device.BUSY_MW - fake_device.IDLE_MW) * energy["seconds"] / energy["images"]
    assert energy["per_image_mj"] == pytest.approx(expected_mj, rel=1e-6)
    raw = read["after"]["jetson"]["power"]
    assert len(raw["samples"]) == energy["samples"] and {mw for _, mw in raw["samples"]} == {4000.0, 9000.0}
    assert [images for *_, images in raw["blocks"]["0"]] == [151] * 3
    assert any("sudo nvpmodel -m 2 && sudo jetson_clocks" in warning for warning in result.warnings)
    shown = {part.title: part for part in bench_report(result).parts}
    energies, told = shown["Energy"], shown["Conditions"]
    assert isinstance(energies, Table) and isinstance(told, Table)
    assert energies.rows[0][-1] == "tegrastats: VDD_IN"
    conditions = dict(told.rows)
    assert conditions["power mode"] == "25W" and conditions["throttling"] == "none"
    assert conditions["clocks"].startswith("not locked (CPU up to 1344 MHz, GPU up to 918 MHz")


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", ["graph", "host"])
def test_a_bundle_that_chooses_buckets(
    behind: Callable[..., Host], recipe: Callable[..., Path], dispatch: str
) -> None:
    """Stem, buckets and mix; of a self-dispatching engine every bucket gets an engine of its own."""
    bundle = recipe(plan=threshold_ladder(), dispatch=dispatch)
    heard: list[str] = []
    result = bench(
        bundle, device="jetson", host=behind(), tell=heard.append, **QUICK | {"runs": 10, "blocks": 1}
    )
    (measured,) = result.measured
    assert measured.mix is not None and set(measured.mix.alone) == set(measured.macs)
    assert all(len(blocks) == 1 for blocks in measured.mix.alone.values())
    engines = result.conditions["engines"][str(bundle)]["engines"]
    assert [one["name"] for one in engines] == (
        ["model"] if dispatch == "graph" else ["stem", *measured.macs]
    )
    assert ("building an engine for each bucket" in " ".join(heard)) == (dispatch == "graph")


def test_here_on_a_jetson(
    behind: Callable[..., Host], recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network; the same agent."""
    monkeypatch.setitem(devices.DEVICES, "jetson", replace(devices.DEVICES["jetson"], is_here=lambda: True))
    place = behind(here=True)
    words = [
        "bench",
        str(recipe()),
        "--device",
        "jetson",
        "--python",
        place.python,
        "--remote-dir",
        place.folder,
    ]
    words += ["--runs", "10", "--blocks", "2", "--starts", "1", "--json"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.stderr
    assert json.loads(answer.stdout)["conditions"]["host"] == "this machine"


def test_engines_that_were_built_there_travel(
    behind: Callable[..., Host], recipe: Callable[..., Path]
) -> None:
    bundle, host = recipe(), behind()
    record = build_on(bundle, host)
    assert (bundle / "build" / "timing.cache").is_file()
    heard: list[str] = []
    bench(bundle, device="jetson", host=host, tell=heard.append, **QUICK | {"runs": 10, "blocks": 1})
    assert "model is up to date" in heard
    assert json.loads((bundle / "build" / "engines.json").read_text()) == record
    (bundle / "build" / "engines.json").write_text(json.dumps(record | {"tensorrt": "10.4.0"}))
    heard.clear()
    bench(bundle, device="jetson", host=host, tell=heard.append, **QUICK | {"runs": 10, "blocks": 1})
    assert "model is up to date" not in heard, "of another version: built again"


def test_a_drop_goes_on_with_the_same_engines(
    behind: Callable[..., Host],
    recipe: Callable[..., Path],
    server: Loopback,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[str] = []
    monkeypatch.setattr(BundleProcesses, "run", when(2, server.drop))
    result = bench(recipe(), device="jetson", host=behind(), tell=heard.append, **QUICK | {"runs": 10})
    assert heard.count("model is up to date") == 1, "by the second agent"
    (measured,) = result.measured
    assert len(measured.blocks) == 3
    assert measured.energy is not None and measured.energy["per_image_mj"] is None
    reasons = (
        "connection was lost during the measurement, and with it the power readings",
        "and the measurement went on",
    )
    for reason in reasons:
        assert any(reason in warning for warning in result.warnings)
    assert f"no energy per image: {measured.energy['reason']}" in result.warnings


def test_what_is_no_jetson(behind: Callable[..., Host], recipe: Callable[..., Path]) -> None:
    bundle = recipe()
    with pytest.raises(TargetError, match=r"board is no Jetson: neither .*measure it with --device ssh"):
        bench(bundle, device="jetson", host=behind(root="/nothing"), **QUICK)


def test_without_a_gpu(behind: Callable[..., Host], recipe: Callable[..., Path]) -> None:
    with pytest.raises(BundleError, match="driver on the device reports no GPU"):
        bench(recipe(), device="jetson", host=behind(no_gpu=True), **QUICK)


def test_without_tensorrt(behind: Callable[..., Host], recipe: Callable[..., Path]) -> None:
    host = behind()
    (Path(host.python).parent / "tensorrt.py").write_text("raise ImportError('No module named tensorrt')")
    (Path(host.python).parent / "tensorrt_rtx.py").write_text(
        "raise ImportError('No module named tensorrt_rtx')"
    )
    with pytest.raises(TargetError, match=r"no TensorRT for this Python .*pip install tensorrt.*--python"):
        bench(recipe(), device="jetson", host=host, **QUICK)


def test_this_machine_is_no_jetson() -> None:
    """What the design card's line says where there is none."""
    answer = CliRunner().invoke(app, ["bench", "--device", "jetson"])
    assert answer.exit_code == 2
    said = " ".join(answer.stderr.split())
    assert "this machine is no Jetson" in said
    assert "`morvit-deploy bench --device jetson --host user@jetson`" in said
    with pytest.raises(ConfigError, match="no Jetson"):
        bench("nothing", device="jetson")
    answer = CliRunner().invoke(app, ["bench", "--device", "cpu", "--host", "user@jetson"])
    assert answer.exit_code == 2 and "leave out --host" in " ".join(answer.stderr.split())
