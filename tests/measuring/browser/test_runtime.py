"""onnxruntime-web: in a given folder, or downloaded once and checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from morvit_deploy.errors import TargetError
from morvit_deploy.measuring.browser import runtime
from morvit_deploy.measuring.browser.runtime import FOLDER_VARIABLE, MODULES, VERSION, find_runtime


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtime, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)


def package(folder: Path, **about: str) -> Path:
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "1.29.0"} | about))
    (folder / "dist" / MODULES["wasm"]).write_text("export {}")
    return folder


def find(folder: Path | None = None, backend: str = "wasm") -> runtime.Runtime:
    return find_runtime(folder, backend, lambda stage: None)


def test_a_folder_of_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = package(tmp_path / "project" / "node_modules" / "onnxruntime-web")
    found = find(tmp_path / "project")
    assert found == find(folder) and found.version == "1.29.0" and list(found.files()) == [MODULES["wasm"]]
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    assert find() == found


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "package.json").write_text("[]")
    for folder in (tmp_path / "missing", tmp_path / "list", package(tmp_path / "other", name="react")):
        with pytest.raises(
            TargetError, match=r"is not a folder of the npm package .*npm install --prefix DIR"
        ):
            find(folder)
    with pytest.raises(TargetError, match=r"has no dist/ort.webgpu.min.mjs, which backend webgpu requires"):
        find(package(tmp_path / "old"), "webgpu")


@pytest.mark.parametrize("registry", ["http://127.0.0.1:9/", "nonsense"], ids=["refuses", "no URL"])
def test_offline(registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("npm_config_registry", registry)
    with pytest.raises(
        TargetError, match=f"cannot download .*npm install .*{VERSION}.*set MORVIT_ORT_WEB=DIR"
    ) as caught:
        find()
    assert "\n" not in str(caught.value) and not (tmp_path / "cache").exists()


def test_another_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "onnxruntime-web" / "-"
    served.mkdir(parents=True)
    (served / f"onnxruntime-web-{VERSION}.tgz").write_bytes(b"something else")
    monkeypatch.setenv("npm_config_registry", tmp_path.as_uri())
    with pytest.raises(TargetError, match=r"sent another file than onnxruntime-web .* nothing was kept"):
        find()
    assert not (tmp_path / "cache").exists()
