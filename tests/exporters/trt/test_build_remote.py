"""Engines built on a device over SSH, an sshd of our own on loopback: TensorRT-RTX builds there for real."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_device
import pytest
from bucket_plans import threshold_ladder
from fake_cuda import fake_gpu, put_engines
from loopback import Loopback, needs_sshd, running
from shipped_bundles import gone, unpacked
from tiny_models import make_config
from typer.testing import CliRunner, Result

from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.agent.trt.builder import share
from morvit_deploy.agent.trt.engines import read_engine, read_engines
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.cli import app
from morvit_deploy.errors import LostError, TargetError
from morvit_deploy.exporters.trt import build as building
from morvit_deploy.exporters.trt import run
from morvit_deploy.exporters.trt.build_remote import build_on
from morvit_deploy.exporters.trt.building import build
from morvit_deploy.exporters.trt.flavors import is_installed
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.measuring.core.inputs import Source, prepare
from morvit_deploy.remote.host import Host
from morvit_deploy.remote.session import Session

pytestmark = needs_sshd

CONFIG = make_config()
MOST_S = 30.0  # from a lost network to the end of the command


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Loopback]:
    with running(tmp_path) as server:
        yield server


@pytest.fixture
def recipe(exported: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of an RTX bundle whose engines were not built."""
    if not is_installed("rtx"):
        pytest.skip("tensorrt-rtx is not installed: pip install morvit-deploy[rtx]")
    bundle = exported(CONFIG, target="trt", precision="fp16", flavor="rtx")
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    for path in [*(copy / "build").glob("*.engine"), copy / "build" / "engines.json"]:
        path.unlink(missing_ok=True)
    return copy


@pytest.fixture
def made_up(exported: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of a bundle for TensorRT, which is not here; for a made-up one on the device."""
    bundle = exported(CONFIG, target="trt", precision="fp32", flavor="tensorrt")
    return Path(shutil.copytree(bundle, tmp_path / "made up"))


def at(board: Loopback, **changes: Any) -> Host:
    return board.host(**{"folder": str(board.folder / "device"), "python": sys.executable} | changes)


def tool(board: Loopback, bundle: Path, *more: str, python: str | Path = sys.executable) -> Result:
    words = ["build", str(bundle), "--host", "board", "--ssh-config", str(board.folder / "ssh_config")]
    words += ["--remote-dir", str(board.folder / "device"), "--python", str(python), *more]
    return CliRunner().invoke(app, words)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_engines_come_back_whole(board: Loopback, recipe: Path) -> None:
    """TensorRT-RTX builds without a GPU: nothing is made up here."""
    before, heard = contents(recipe / "build"), list[str]()
    manifest = (recipe / "manifest.json").read_bytes()
    record = build_on(recipe, at(board), tell=heard.append)
    assert any(stage.startswith("building model: ") for stage in heard), "progress is streamed"
    stored = read_engines(recipe / "build")
    assert stored == record and [one["name"] for one in stored["engines"]] == ["model"]
    assert len(read_engine(recipe / "build", stored, "model")) == record["engines"][0]["bytes"]
    after = contents(recipe / "build")
    assert {name: after.pop(name) for name in before} == before, "nothing else changed"
    assert set(after) == {"model.engine", "engines.json"}
    assert (recipe / "manifest.json").read_bytes() == manifest
    assert open_manifest(recipe).target == "trt"
    assert gone(board.folder / "device")
    built = build(recipe, host=at(board))
    assert built.engines == ("model.engine",) and built.record == record
    assert repr(built) == f"Built({str(recipe)!r}, 1 engine, TensorRT-RTX {record['tensorrt']})"
    assert "model.engine" in built._repr_html_()
    again = tool(board, recipe, "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout) == {"bundle": str(recipe), **record}, "what is up to date is kept"


def test_the_same_here(recipe: Path) -> None:
    words = ["build", str(recipe), "--compute-capability", "SM89", "--json"]
    answer = CliRunner().invoke(app, words)
    assert answer.exit_code == 0, answer.stderr
    record = json.loads(answer.stdout)
    assert record["engines"][0]["compute_capability"] == ["SM89"]
    assert read_engines(recipe / "build")["engines"] == record["engines"]
    shown = CliRunner().invoke(app, [*words[:-1]]).stdout
    assert "model.engine" in shown and "SM89" in shown and "TensorRT-RTX" in shown


@pytest.mark.slow
def test_a_bucket_of_a_self_dispatching_bundle_is_built(
    exported: Callable[..., Path], tmp_path: Path
) -> None:
    """By TensorRT-RTX from what `bench` sends: the graph of a bucket, and the weights that the bundle's own have."""
    if not is_installed("rtx"):
        pytest.skip("tensorrt-rtx is not installed: pip install morvit-deploy[rtx]")
    plan = threshold_ladder()
    bundle = exported(CONFIG, target="trt", precision="fp16", flavor="rtx", plan=plan, dispatch="graph")
    folder = unpacked(prepare(bundle, Source(), tmp_path / "pixels.npy"), tmp_path / "device")
    share(folder / "build", folder / "alone")
    record = trt_build.build(folder / "alone", lambda event: None)
    assert [one["name"] for one in record["engines"]] == [bucket.name for bucket in plan.buckets]
    assert (folder / "alone" / "weights.bin").samefile(folder / "build" / "weights.bin")


def test_what_is_up_to_date_is_kept_unless_rebuilt(board: Loopback, made_up: Path, tmp_path: Path) -> None:
    python = fake_device.make_python(tmp_path / "fakes")
    first = build_on(made_up, at(board, python=str(python)))
    assert (first["flavor"], first["tensorrt"]) == ("tensorrt", fake_device.VERSION)
    assert (made_up / "build" / "timing.cache").is_file()
    for rebuild in (False, True):
        heard: list[str] = []
        again = build_on(made_up, at(board, python=str(python)), rebuild=rebuild, tell=heard.append)
        assert ("model is up to date" in heard) is not rebuild
        assert again["engines"][0]["sha256"] == first["engines"][0]["sha256"]


def test_a_flavor_that_the_device_lacks(board: Loopback, recipe: Path, tmp_path: Path) -> None:
    """A bundle for RTX and a device with JetPack's TensorRT alone."""
    python = fake_device.make_python(tmp_path / "fakes")
    (python.parent / "tensorrt_rtx.py").write_text("raise ImportError('none here')")
    refused = tool(board, recipe, "--flavor", "rtx", python=python)
    assert refused.exit_code == 2 and not (recipe / "build" / "engines.json").exists()
    assert "or build with what is installed: --flavor tensorrt" in " ".join(refused.stderr.split())
    assert build_on(recipe, at(board, python=str(python)))["flavor"] == "tensorrt"
    assert gone(board.folder / "device")


def test_a_network_that_is_pulled(board: Loopback, made_up: Path, tmp_path: Path) -> None:
    python = fake_device.make_python(tmp_path / "fakes", build_s=60.0)
    before = contents(made_up / "build")
    pulled: list[float] = []

    def pull(stage: str) -> None:
        if stage.startswith("building model") and not pulled:
            pulled.append(time.monotonic())
            board.kill()

    with pytest.raises(
        LostError, match=r"board was lost while building engines.*the bundle here is unchanged"
    ):
        build_on(made_up, at(board, python=str(python)), tell=pull)
    assert time.monotonic() - pulled[0] < MOST_S
    assert contents(made_up / "build") == before
    assert gone(board.folder / "device"), "the builder ends with its agent"


def test_interrupted(board: Loopback, made_up: Path, tmp_path: Path) -> None:
    python = fake_device.make_python(tmp_path / "fakes", build_s=60.0)
    before = contents(made_up / "build")

    def stop(stage: str) -> None:
        if stage.startswith("building model"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_on(made_up, at(board, python=str(python)), tell=stop)
    assert contents(made_up / "build") == before
    assert gone(board.folder / "device")


def test_engines_that_are_damaged_on_their_way(
    board: Loopback, made_up: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, fetch = contents(made_up / "build"), Session.fetch

    def torn(session: Session, place: str, names: Any, into: Path) -> None:
        fetch(session, place, names, into)
        (into / "model.engine").write_bytes(b"torn")

    monkeypatch.setattr(Session, "fetch", torn)
    python = fake_device.make_python(tmp_path / "fakes")
    with pytest.raises(TargetError, match=r"files from the device are damaged: .*sha256 differs"):
        build_on(made_up, at(board, python=str(python)))
    assert contents(made_up / "build") == before


def test_what_tensorrt_refuses_is_told(board: Loopback, made_up: Path, tmp_path: Path) -> None:
    python = fake_device.make_python(tmp_path / "fakes", refuses=True)
    refused = tool(board, made_up, python=python)
    assert refused.exit_code == 2 and refused.stderr.count("error:") == 1
    assert "could not find any implementation for node" in refused.stderr
    assert gone(board.folder / "device")


def test_engines_of_the_flavor_that_is_here_run(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle for RTX whose engines a machine's own TensorRT has built, on that machine."""
    manifest = open_manifest(made_up)
    rtx = manifest.model_copy(
        update={"target_form": TrtForm.of(manifest).model_copy(update={"flavor": "rtx"})}
    )
    fake_gpu(monkeypatch)
    put_engines(made_up)
    monkeypatch.setattr(run, "is_installed", lambda flavor: flavor == "tensorrt")
    assert run.look_for(made_up, rtx).flavor == "tensorrt"
    monkeypatch.setattr(building, "is_installed", lambda flavor: flavor == "tensorrt")
    assert building.flavor_here(rtx) == "tensorrt"
    monkeypatch.setattr(building, "is_installed", lambda flavor: False)
    assert building.flavor_here(rtx) == "rtx", "whose message says how to install it"
    compatible = rtx.model_copy(
        update={"target_form": TrtForm.of(manifest).model_copy(update={"version_compatible": True})}
    )
    assert building.may_change(rtx) and not building.may_change(compatible)


def test_what_cannot_be_built(tiny_bundle: Path, made_up: Path) -> None:
    for words, says in (
        ([str(tiny_bundle)], "is for target 'onnx', which has no engines to build"),
        ([str(made_up), "--flavor", "lite"], "got 'lite', expected one of tensorrt, rtx"),
        ([str(made_up), "--compute-capability", "89"], "got '89', expected SM and a number"),
        ([str(made_up), "--ssh-option", "Port=1"], "say how to reach --host"),
        ([str(made_up), "--python", "python3.8"], "say how to reach --host"),
    ):
        refused = CliRunner().invoke(app, ["build", *words])
        assert refused.exit_code == 2, words
        assert says in " ".join(refused.stderr.split())
