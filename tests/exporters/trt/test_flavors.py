"""Which TensorRT is used, what it offers, and how its options are refused; no engine is built here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.errors import ConfigError, TargetError
from morvit_deploy.exporters.trt import flavors
from morvit_deploy.exporters.trt.flavors import Here, capabilities, choose, form_of
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.options import TrtOptions
from morvit_deploy.exporters.trt.recipe import write_recipe

GPU = {"name": "RTX 4090", "compute_capability": "8.9"}
ORIN = {"name": "Orin", "compute_capability": "8.7"}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Flavor to version, as if installed."""
    versions: dict[str, str] = {}
    members = dict.fromkeys(["NONE", "CURRENT", "SM75", "SM120", "SM89", "SM86"])
    capability = type("ComputeCapability", (), {"__members__": members})

    def load(flavor: str) -> Any:
        trt_build.check_version(flavor, versions[flavor])
        return type("trt", (), {"__version__": versions[flavor], "ComputeCapability": capability})

    monkeypatch.setattr(flavors, "is_installed", lambda flavor: flavor in versions)
    monkeypatch.setattr(flavors, "load", load)
    monkeypatch.setattr(trt_build, "this_device", lambda: None)
    return versions


def test_what_is_installed_is_chosen(installed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = choose(TrtOptions())
    assert (nothing.flavor, nothing.builds, nothing.runs) == ("tensorrt", False, False)
    assert nothing.why_not.startswith("TensorRT is not installed here; it comes with `")
    installed["rtx"] = "1.7.1"
    rtx = choose(TrtOptions())
    assert (rtx.product, rtx.builds, rtx.runs) == ("TensorRT-RTX 1.7.1", True, False)
    installed["tensorrt"] = "10.3.0"
    both = choose(TrtOptions())
    assert (both.flavor, both.builds) == ("tensorrt", False)
    assert both.why_not == "TensorRT 10.3.0 builds for the GPU that it runs on, and there is none here"
    monkeypatch.setattr(trt_build, "this_device", lambda: GPU)
    assert choose(TrtOptions()).builds and choose(TrtOptions(flavor="rtx")).runs


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"flavor": "onnx"}, "flavor: got 'onnx', expected one of tensorrt, rtx"),
        (
            {"flavor": "tensorrt", "compute_capability": ("SM89",)},
            "compute_capability: not supported by flavor 'tensorrt'",
        ),
        (
            {"flavor": "rtx", "hardware_compatible": True},
            "hardware_compatible: not supported by flavor 'rtx'",
        ),
        ({"flavor": "rtx", "version_compatible": True}, "version_compatible: not supported by flavor 'rtx'"),
        ({"compute_capability": ("8.9",)}, "got '8.9', expected SM and a number, as SM89"),
        ({"max_batch": 0}, "max_batch: got 0, expected a positive number"),
        ({"workspace_mib": True}, "workspace_mib: got True"),
    ],
)
def test_options_that_no_engine_can_have(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        TrtOptions(**asked)


def test_options_are_held_against_the_flavor_that_was_found(installed: dict[str, str]) -> None:
    installed["rtx"] = "1.7.1"
    with pytest.raises(ConfigError, match="version_compatible: not supported by flavor 'rtx'"):
        choose(TrtOptions(version_compatible=True))
    with pytest.raises(TargetError, match=r"got SM87; TensorRT-RTX 1.7.1 builds for SM75, SM86, SM89, SM120"):
        choose(TrtOptions(compute_capability=("SM87",)))
    installed["rtx"] = "1.0.0"
    with pytest.raises(trt_build.BuildError, match="too old"):
        choose(TrtOptions())


def test_a_version_that_is_too_old_is_refused_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_tensorrt import fake_tensorrt

    fake_tensorrt(monkeypatch, "8.6.1")
    with pytest.raises(TargetError, match=r"8\.6\.1 is too old, expected 10\.3.*pip install tensorrt"):
        flavors.look("tensorrt")


def test_gpus_to_build_for(installed: dict[str, str]) -> None:
    installed["rtx"] = "1.7.1"
    assert capabilities(Here("rtx", "1.7.1", None)) == ["SM75", "SM86", "SM89", "SM120"]
    assert capabilities(Here("tensorrt", "10.3.0", GPU)) == []
    for device, asked, expected in (
        (None, (), ()),  # RTX's own default: every GPU from Ampere on
        (GPU, (), ("SM89",)),
        (ORIN, ("SM89",), ("SM89",)),
        (GPU, ("SM75",), ("SM75",)),
    ):
        form = form_of(TrtOptions(compute_capability=asked), Here("rtx", "1.7.1", device), dynamic=False)
        assert (form.compute_capability, form.max_batch) == (expected, None)


@pytest.mark.parametrize("capability", ["8.7", "9.0"])
def test_rtx_is_refused_on_a_gpu_that_it_does_not_build_for(
    installed: dict[str, str], monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    installed["rtx"] = "1.7.1"
    here = {"name": "Orin", "compute_capability": capability}
    monkeypatch.setattr(trt_build, "this_device", lambda: here)
    own = "SM" + capability.replace(".", "")
    with pytest.raises(
        TargetError, match=rf"this GPU is Orin \({own}\), and TensorRT-RTX .* only for .*--flavor tensorrt"
    ):
        choose(TrtOptions())
    assert choose(TrtOptions(compute_capability=("SM89",))).device == here, "for another machine"


@pytest.mark.parametrize(("asked", "largest"), [(None, 32), (8, 8)])
def test_a_dynamic_batch_is_tuned_for_full_ones(tmp_path: Path, asked: int | None, largest: int) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    form = form_of(TrtOptions(max_batch=asked), Here("tensorrt", None, None), dynamic=True)
    write_recipe(tmp_path, ["model.onnx"], form, precision="fp16", batch="dynamic", workspace_mib=None)
    recipe = json.loads((tmp_path / "build.json").read_text())
    assert recipe["engines"][0]["batch"] == [1, largest, largest]


def test_the_recipe_is_what_the_builder_reads(tmp_path: Path) -> None:
    for name in ("stem.onnx", "full.onnx", "weights.bin"):
        (tmp_path / name).write_bytes(name.encode())
    form = TrtForm(flavor="tensorrt", version_compatible=True)
    names = write_recipe(
        tmp_path, ["stem.onnx", "full.onnx", "weights.bin"], form, precision="bf16", batch=2, workspace_mib=64
    )
    assert names == ["build.json", "build.py"]
    recipe = trt_build.read_recipe(tmp_path)
    trt_build.check_files(tmp_path, recipe["files"])
    assert [engine["name"] for engine in recipe["engines"]] == ["stem", "full"]
    assert (recipe["timing_cache"], recipe["version_compatible"], recipe["tf32"]) == (
        "timing.cache",
        True,
        False,
    )
    assert (tmp_path / "build.py").read_bytes() == Path(trt_build.__file__).read_bytes()
    write_recipe(tmp_path, [], TrtForm(flavor="rtx"), precision="fp16", batch=1, workspace_mib=None)
    assert json.loads((tmp_path / "build.json").read_text())["timing_cache"] is None, "RTX's is a no-op"
