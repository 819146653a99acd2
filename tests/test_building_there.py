"""Engines built on a device over SSH, an sshd of our own on loopback: TensorRT-RTX builds there for real."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loopback
import pytest
from conftest import make_config
from ladders import threshold_ladder
from loopback import Loopback
from test_agent import gone
from typer.testing import CliRunner, Result

from morvit_deploy.agent.trt_engines import read_engine, read_engines
from morvit_deploy.bundle import open_manifest
from morvit_deploy.cli import app
from morvit_deploy.exporters.building_there import build_on
from morvit_deploy.exporters.trt_flavors import is_installed
from morvit_deploy.remote.host import Host

pytestmark = pytest.mark.skipif(bool(loopback.why_not()), reason=loopback.why_not() or "an sshd runs here")

CONFIG = make_config()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Loopback]:
    server = Loopback(tmp_path / "a board")
    (server.folder / "device").mkdir()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def recipe(exported: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of an RTX bundle whose engines were not built."""
    if not is_installed("rtx"):
        pytest.skip("tensorrt-rtx is not installed: pip install morvit-deploy[rtx]")
    bundle = exported(CONFIG, target="trt", precision="fp16", flavor="rtx", plan=threshold_ladder())
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    for path in [*(copy / "build").glob("*.engine"), copy / "build" / "engines.json"]:
        path.unlink(missing_ok=True)
    return copy


def at(board: Loopback, **changes: Any) -> Host:
    return board.host(**{"folder": str(board.folder / "device"), "python": sys.executable} | changes)


def run(board: Loopback, bundle: Path, *more: str) -> Result:
    words = ["build", str(bundle), "--host", "board", "--ssh-config", str(board.folder / "ssh_config")]
    words += ["--remote-dir", str(board.folder / "device"), "--python", sys.executable, *more]
    return CliRunner().invoke(app, words)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_engines_come_back_whole(board: Loopback, recipe: Path) -> None:
    before, heard = contents(recipe / "build"), list[str]()
    manifest = (recipe / "manifest.json").read_bytes()
    record = build_on(recipe, at(board), tell=heard.append)
    assert any("building" in stage and "%" in stage for stage in heard), "progress is streamed"
    stored = read_engines(recipe / "build")
    assert stored == record and [one["name"] for one in stored["engines"]] == ["model"]
    assert len(read_engine(recipe / "build", stored, "model")) == record["engines"][0]["bytes"]
    assert {**contents(recipe / "build"), **before} == contents(recipe / "build"), "nothing else changed"
    assert set(contents(recipe / "build")) == {*before, "model.engine", "engines.json"}
    assert (recipe / "manifest.json").read_bytes() == manifest
    open_manifest(recipe)
    assert gone(board.folder / "device")
