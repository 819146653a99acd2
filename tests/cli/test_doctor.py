"""`doctor`: every requirement is looked at, what is missing gets its install line, and torch stays unloaded."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from email.message import Message
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from typer.testing import CliRunner, Result

from morvit_deploy.cli import app
from morvit_deploy.exporters.targets import targets
from morvit_deploy.machine import dependencies, diagnosis
from morvit_deploy.machine.extras import is_missing


@pytest.fixture(autouse=True)
def imported(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Imports take a quarter of a minute: here all succeed but those that a test puts into this."""
    problems: dict[str, str] = {}
    monkeypatch.setattr(
        diagnosis, "try_imports", lambda names: {name: problems.get(name, "") for name in names}
    )
    return problems


def _doctor(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def _pretend(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let named distributions have another version, or none."""
    real = dependencies.installed
    monkeypatch.setattr(
        dependencies, "installed", lambda name: versions[name] if name in versions else real(name)
    )


def test_this_machine_is_complete() -> None:
    result = _doctor("--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    core = [library for library in found["libraries"] if not library["extra"]]
    assert {library["state"] for library in core} == {"ok"}
    assert found["python_fits"]
    assert found["machine"]["cores"] >= 1


def test_it_shows_itself() -> None:
    found = diagnosis.doctor()
    assert repr(found).startswith(f"Diagnosis(morvit-deploy {found.version}, Python ")
    assert "Libraries" in found._repr_html_()


def test_every_requirement_is_looked_at_once() -> None:
    names = [library.name for library in dependencies.libraries()]
    required = importlib.metadata.requires("morvit-deploy") or []
    older = ["tomli"] if sys.version_info >= (3, 11) else []  # a later Python has it itself
    assert len(names) == len([line for line in required if not line.startswith(("morvit-deploy", *older))])
    torch = next(library for library in dependencies.libraries() if library.name == "torch")
    assert torch.wanted.startswith(">=")
    assert "<2.14" in torch.wanted


def test_every_target_of_the_registry_and_no_other() -> None:
    found = json.loads(_doctor("--json").stdout)
    assert [target["name"] for target in found["targets"]] == list(targets())
    assert f"this version exports to: {', '.join(targets())}" in _doctor().stdout


def test_needs_are_requirements_of_the_package() -> None:
    names = {library.name for library in dependencies.libraries()}
    for target in targets().values():
        assert names.issuperset(target.needs.export + target.needs.run)


def test_missing_core_library(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, pillow=None)
    result = _doctor("--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert not found["targets"][0]["run"]
    assert found["install"]["core"].startswith('pip install "pillow>=')
    assert found["install"]["core"] in result.stderr


def test_without_the_extra_a_bundle_runs_and_its_line_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, onnxsim=None)
    result = _doctor("--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["targets"][0] | {"runs_on": ""} == {
        "name": "onnx",
        "runs_on": "",
        "export": False,
        "run": True,
        "runs_here": "ONNX Runtime on the CPU",
    }
    assert found["install"]["export"] == 'pip install "morvit-deploy[export]"'


def test_missing_psutil_still_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, psutil=None)
    result = _doctor()
    assert result.exit_code == 1
    assert '"psutil>=' in result.stderr


def test_missing_extra_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, **{"scikit-learn": None, "tensorrt": "10.13.0", "cuda-python": "13.0.0"})
    result = _doctor("--json")
    assert result.exit_code == 0
    assert list(json.loads(result.stdout)["install"]) == ["train"]


@pytest.mark.parametrize(("machine", "wheel"), [("x86_64", True), ("aarch64", False)])
def test_pip_is_not_asked_for_tensorrt_on_a_jetson(machine: str, wheel: bool) -> None:
    """NVIDIA's package on the index fetches a library for x86-64; a Jetson has it from JetPack."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    (line,) = re.findall(r'"(tensorrt>=.+)"', text)
    marker = Requirement(line).marker
    assert marker is not None
    assert marker.evaluate({"sys_platform": "linux", "platform_machine": machine}) is wheel


@pytest.mark.parametrize(("version", "state"), [("10.3.0", "ok"), ("8.5.2", "untested"), (None, None)])
def test_tensorrt_that_came_with_the_system(
    monkeypatch: pytest.MonkeyPatch, version: str | None, state: str | None
) -> None:
    """The extra excludes this machine: what is installed counts all the same, and no pip line is shown for it."""
    line = "tensorrt<12,>=10.3; sys_platform == 'linux' and platform_machine == 'x86_64' and extra == 'trt'"
    here = default_environment()
    monkeypatch.setattr(
        "packaging.markers.default_environment", lambda: here | {"platform_machine": "aarch64"}
    )
    monkeypatch.setattr(dependencies, "own", lambda: Jetson([line]))
    monkeypatch.setattr(diagnosis, "own", lambda: Jetson([line]))
    _pretend(monkeypatch, tensorrt=version)
    found = diagnosis.doctor()
    assert [library.state for library in found.libraries] == ([] if state is None else [state])
    assert found.install == {}


class Jetson:
    """The package's metadata on a Jetson."""

    version = "0"

    def __init__(self, requires: list[str]) -> None:
        self.requires = requires
        self.metadata = Message()
        self.metadata["Provides-Extra"], self.metadata["Requires-Python"] = "trt", ">=3.10"


@pytest.mark.parametrize(
    ("version", "state"), [("2.14.0", "untested"), ("2.13.0+cu130", "ok"), ("2.8.1", "untested")]
)
def test_versions_against_the_tested_range(monkeypatch: pytest.MonkeyPatch, version: str, state: str) -> None:
    _pretend(monkeypatch, torch=version)
    result = _doctor("--json")
    assert result.exit_code == 0  # it may work: nothing is missing
    found = json.loads(result.stdout)
    torch = next(library for library in found["libraries"] if library["name"] == "torch")
    assert torch["state"] == state
    assert ("export" in found["install"]) == (state == "untested")


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo 'NVIDIA H200, 143771 MiB'", ("NVIDIA H200, 143771 MiB",)), ("exit 9", None), (None, None)],
    ids=["one", "broken driver", "no tool"],
)
def test_gpu_is_asked_of_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str | None, expected: tuple[str, ...] | None
) -> None:
    if script is not None:
        tool = tmp_path / "nvidia-smi"
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert diagnosis.doctor().gpus == expected


def test_a_library_that_cannot_be_imported_is_not_ok(imported: dict[str, str]) -> None:
    imported["onnxscript"] = "ImportError: undefined symbol: _ZN4onnx"
    imported["torchvision"] = "RuntimeError: operator torchvision::nms does not exist"
    result = _doctor("--json")
    assert result.exit_code == 0, "no command needs them to run a bundle"
    found = json.loads(result.stdout)
    states = {library["name"]: library["state"] for library in found["libraries"]}
    assert states["onnxscript"] == states["torchvision"] == "broken" and states["torch"] == "ok"
    exported = {target["name"]: target["export"] for target in found["targets"]}
    assert exported == {
        "onnx": False,
        "trt": False,
        "coreml": True,
        "coreai": not is_missing("coreai_torch"),  # its wheels do not exist for every Python and system
    }  # Apple's need no onnxscript
    assert found["targets"][0]["run"] and "export" in found["install"]
    text = " ".join(_doctor().stdout.split())
    assert "broken: ImportError: undefined symbol: _ZN4onnx" in text
    assert "broken: RuntimeError: operator torchvision::nms does not exist" in text
    assert "onnxscript is installed but cannot be imported." in text


def test_a_required_library_that_cannot_be_imported_fails(imported: dict[str, str]) -> None:
    imported["onnxruntime"] = "ended while importing: SIGILL"
    result = _doctor("--json")
    assert result.exit_code == 1
    assert "required libraries cannot be used: onnxruntime (broken)" in result.stderr
    assert 'pip install --force-reinstall "onnxruntime>=' in result.stderr
    assert not any(target["run"] for target in json.loads(result.stdout)["targets"][:1])


def test_a_broken_psutil_is_not_imported_here(
    imported: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    imported["psutil"] = "ImportError: no module"
    assert diagnosis.doctor().machine is None


@pytest.mark.parametrize(
    ("gpu", "have", "here"),
    [
        (False, {"tensorrt": "10.13.0"}, "ONNX Runtime on the CPU: there is no NVIDIA GPU"),
        (True, {"tensorrt": "10.13.0"}, "TensorRT on the GPU"),
        (True, {"tensorrt": None, "tensorrt-rtx": "1.4"}, "TensorRT-RTX on the GPU"),
        (True, {"tensorrt": None, "tensorrt-rtx": None}, ""),
    ],
    ids=["no GPU", "TensorRT", "RTX", "a GPU without TensorRT"],
)
def test_what_runs_trt_here(
    monkeypatch: pytest.MonkeyPatch, gpu: bool, have: dict[str, str | None], here: str
) -> None:
    _pretend(monkeypatch, **have)
    monkeypatch.setattr(diagnosis, "_gpus", lambda: ("NVIDIA H200, 143771 MiB",) if gpu else None)
    state = {one.name: one for one in diagnosis.doctor().targets}["trt"]
    assert (state.runs_here, state.run) == (here, bool(here))


@pytest.mark.parametrize(
    ("platform", "here"), [("darwin", "Core ML"), ("linux", "an interpreter on the CPU")]
)
def test_what_runs_coreml_here(monkeypatch: pytest.MonkeyPatch, platform: str, here: str) -> None:
    monkeypatch.setattr("morvit_deploy.exporters.coreml.target.sys.platform", platform)
    assert targets()["coreml"].runs_here({"coremltools"}, False).startswith(here)


def test_no_torch_and_nothing_else_heavy() -> None:
    program = (
        "import sys\n"
        "from morvit_deploy.machine.diagnosis import doctor\n"
        "from morvit_deploy.machine.views import doctor_report\n"
        "doctor_report(doctor())\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
