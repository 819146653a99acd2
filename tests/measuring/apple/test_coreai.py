"""Core AI on a Mac: what is looked for, and the backend over a stand-in for `coreai.runtime`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from absent import without
from bucket_plans import EXPERT, threshold_ladder
from swift import coreai_manifest

from morvit_deploy.bundle.manifest import MANIFEST, Manifest, describe_files
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.coreai.mac import RUNTIME, CoreaiMac, needed_items
from morvit_deploy.exporters.coreml.sdk.bundle import Package, read_package
from morvit_deploy.measuring.apple.dispatching import UNITS, predict
from morvit_deploy.measuring.apple.goldens import Golden, Goldens
from morvit_deploy.measuring.apple.project import write_project
from morvit_deploy.measuring.apple.running import Wish, look


class Options:
    """Which specialization was asked for."""

    def __init__(self, asked: str) -> None:
        self.asked = asked

    @classmethod
    def cpu_only(cls) -> Options:
        return cls("cpu only")

    @classmethod
    def default(cls) -> Options:
        return cls("default")

    @classmethod
    def from_preferred_compute_unit_kind(cls, kind: str) -> Options:
        return cls(f"prefers {kind}")


class Function:
    """Returns what a small model would; refuses inputs that it does not have, as Core AI does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.desc = SimpleNamespace(input_names=["image"] if name == "stem" else ["stem_state"])

    async def __call__(self, inputs: dict[str, Any]) -> dict[str, Any]:
        if sorted(inputs) != self.desc.input_names:
            raise RuntimeError(f"unknown inputs {sorted(inputs)}")
        found = {"logits": np.ones((1, 10), np.float32), "overflow": np.array([self.name == "b0"], np.int32)}
        if self.name == "stem":
            assert inputs["image"].value.shape == (1, EXPERT.image_size, EXPERT.image_size, 3)
            found = {"bucket": np.zeros(1, np.int32), "stem_state": np.zeros((1, 4), np.float32)}
        return {name: Array(value) for name, value in found.items()}


class Array:
    def __init__(self, value: np.ndarray) -> None:
        self.value = value

    def numpy(self) -> np.ndarray:
        return self.value


class Model:
    """Remembers its options; has the functions of the plan."""

    asked: ClassVar[list[str]] = []
    function_names = ("stem", *(bucket.name for bucket in threshold_ladder().buckets))

    @classmethod
    async def load(cls, path: Path, options: Options) -> Model:
        cls.asked.append(options.asked)
        if not path.is_dir():
            raise RuntimeError("no such asset")
        return cls()

    def load_function(self, name: str) -> Function:
        return Function(name)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    fake: Any = ModuleType("coreai.runtime")
    kinds = SimpleNamespace(neural_engine=lambda: "neural engine", gpu=lambda: "gpu")
    fake.AIModel, fake.SpecializationOptions, fake.ComputeUnitKind, fake.NDArray = (
        Model,
        Options,
        kinds,
        Array,
    )
    top: Any = ModuleType("coreai")
    top.runtime = fake
    monkeypatch.setitem(sys.modules, "coreai", top)
    monkeypatch.setitem(sys.modules, "coreai.runtime", fake)
    monkeypatch.setattr(Model, "asked", [])


@pytest.fixture
def bundle(tmp_path: Path) -> tuple[Path, Manifest]:
    folder = tmp_path / "bundle"
    asset = folder / "MoRViT.aimodel"
    asset.mkdir(parents=True)
    (asset / "main.mlirb").write_bytes(b"program")
    manifest = coreai_manifest(EXPERT, threshold_ladder())
    files = describe_files(folder, ["MoRViT.aimodel/main.mlirb"])
    manifest = manifest.model_copy(update={"files": tuple(files)})
    (folder / MANIFEST).write_text(manifest.to_json())
    return folder, manifest


@pytest.fixture
def package(bundle: tuple[Path, Manifest]) -> Package:
    return read_package(bundle[0])


def test_a_coreai_bundle_is_read(package: Package) -> None:
    assert (package.target, package.ios, package.path.name) == ("coreai", 27, "MoRViT.aimodel")
    assert package.functions[0] == "stem"


def test_every_choice_of_units(runtime: None, package: Package) -> None:
    mac = CoreaiMac(package)
    for units in UNITS:
        assert mac.open("stem", units).load_ms > 0
    assert Model.asked == ["default", "prefers neural engine", "prefers gpu", "cpu only"]
    mac.close()


def test_an_image_runs_as_in_an_app(runtime: None, package: Package) -> None:
    mac = CoreaiMac(package)
    functions = {name: mac.open(name, "cpu") for name in package.functions}
    pixels = np.zeros((EXPERT.image_size, EXPERT.image_size, 3), np.uint8)
    found = predict(package, functions, mac.picture(pixels))
    assert found.overflow and found.bucket == "full" and found.ms > 0 and found.logits.shape == (10,)
    assert len(functions["full"].times({"stem_state": np.zeros((1, 4), np.float32)}, 3)) == 3
    with pytest.raises(TargetError, match="reports no placement"):
        mac.placement("stem", "cpu")
    mac.close()


def test_what_core_ai_refuses_is_named(runtime: None, package: Package) -> None:
    mac = CoreaiMac(package)
    with pytest.raises(TargetError, match=r"Core AI failed at running b0 for cpu: unknown inputs \[\]"):
        mac.wait(Function("b0")({}), "running b0 for cpu")
    with pytest.raises(TargetError, match="has no function 'b7'"):
        mac.open("b7", "cpu")
    mac.close()


def test_what_a_mac_needs() -> None:
    assert all(item.fits for item in needed_items("mac", "27.0", "1.0.0b3"))
    missing = "\n".join(map(str, needed_items("mac", None, None)))
    assert "MISSING macOS 27" in missing and 'pip install "coreai-core==1.0.0b3"' in missing
    assert "in an app with MoRViTKit" in str(needed_items("iphone", "27.0", "1.0.0b3")[-1])


def test_look_lists_what_core_ai_needs(package: Package) -> None:
    for device in ("mac", "iphone"):
        with pytest.raises(TargetError, match="macOS 27 or newer, for Core AI"):
            look(package, Wish(device, ("cpu",)), "elsewhere")


@pytest.fixture
def project(bundle: tuple[Path, Manifest], tmp_path: Path) -> Path:
    folder, manifest = bundle
    pixels = np.zeros((1, EXPERT.image_size, EXPERT.image_size, 3), np.uint8)
    golden = Golden(pixels, np.zeros((1, 10), np.float32), chosen=True)
    names = [bucket.name for bucket in manifest.plan.buckets]
    goldens = Goldens(dict.fromkeys(names, golden), dict.fromkeys(names, 1.0), "equal parts")
    return write_project(folder, manifest, goldens, tmp_path / "p", inputs="none")


def test_the_project_of_an_asset(project: Path) -> None:
    assert "coreai-core==" in (project / "requirements.txt").read_text()
    readme = (project / "README.md").read_text()
    assert "macOS 27" in readme and "--device iphone" not in readme and "{" not in readme
    assert read_package(project / "bundle").target == "coreai"
    known = json.loads((project / "project.json").read_text())
    assert known["buckets"] == [bucket.name for bucket in threshold_ladder().buckets]
    assert known["expected"] == RUNTIME.project.expected
    assert (project / "morvit_deploy/exporters/coreai/mac.py").is_file()


@pytest.mark.skipif(sys.platform == "darwin", reason="there nothing may be missing")
def test_the_projects_script_says_what_it_does_and_what_is_missing(project: Path, tmp_path: Path) -> None:
    """Before it imports coremltools or Core AI, which take long to load."""
    program = f"import runpy; runpy.run_path({str(project / 'bench.py')!r}, run_name='__main__')"
    done = without(["coremltools", "coreai"], tmp_path, program)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "… checking the bundle\n… looking at this machine\nerror: --device mac cannot measure here."
    )
    assert "MISSING macOS 27 or newer, for Core AI: this is Linux" in done.stderr
