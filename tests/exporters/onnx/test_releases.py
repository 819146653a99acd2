"""The lowest ONNX Runtime of a bundle: derived from its files, stated, checked before anything is loaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort
import pytest
from adaptive_plans import threshold_plan
from commands import answer, refused, run
from onnx import TensorProto, helper
from onnx_edits import OnnxEdit, edited_onnx
from places import ROOT
from tiny_models import make_config

from morvit_deploy import open_bundle, verify
from morvit_deploy.bundle.manifest import describe_files, open_manifest
from morvit_deploy.errors import BundleError, StructureError, TargetError
from morvit_deploy.exporters.onnx.releases import (
    READS,
    TESTED_FROM,
    Held,
    held_by,
    ir_version,
    lowest_of,
    lowest_release,
)
from morvit_deploy.machine import dependencies

Exported = Callable[..., Path]
ADAPTIVE = threshold_plan(make_config(), (0.1, 0.0, 0.2), [(9, 5, 2)])


def pretend(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    """Another ONNX Runtime is installed, and loading a graph in it would end the process."""

    def load(*_: object, **__: object) -> None:
        raise AssertionError("a graph was loaded")

    monkeypatch.setattr(ort, "__version__", version)
    monkeypatch.setattr(ort, "InferenceSession", load)


def stating(bundle: Path, folder: Path, lowest: object) -> Path:
    """A copy of a bundle whose manifest states something else."""
    copy = Path(shutil.copytree(bundle, folder / "stating"))
    fields = json.loads((copy / "manifest.json").read_text())
    fields["target_form"] = {} if lowest is None else {"lowest_runtime": lowest}
    (copy / "manifest.json").write_text(json.dumps(fields))
    return copy


# derived ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("held", "lowest"),
    [
        (Held(8, 18), TESTED_FROM),
        (Held(7, 17), TESTED_FROM),
        (Held(9, 19), TESTED_FROM),  # 1.15 loads it, and is not tested
        (Held(8, 20), "1.17"),
        (Held(10, 18), "1.18"),
        (Held(10, 20), "1.18"),
        (Held(8, 18, norm_without_bias=True), "1.19"),
        (Held(10, 20, norm_without_bias=True), "1.19"),
        (Held(8, 18, takes_over_unread=True), "1.19"),
        (Held(10, 22), "1.21"),
        (Held(11, 18), "1.23"),
        (Held(11, 23, norm_without_bias=True), "1.23"),
        (Held(13, 26), "1.25"),
        (Held(8, 18, blocks=frozenset({4})), "1.17"),
        (Held(8, 18, blocks=frozenset({4, 8})), "1.23"),
    ],
    ids=repr,
)
def test_what_a_file_holds_decides(held: Held, lowest: str) -> None:
    assert lowest_release([held]) == lowest
    assert lowest_release([Held(8, 18), held, Held(8, 18)]) == lowest, "the newest of all files counts"


@pytest.mark.parametrize("held", [Held(14, 18), Held(8, 27)], ids=repr)
def test_what_no_known_release_loads_is_refused(held: Held) -> None:
    with pytest.raises(StructureError, match=r"ONNX Runtime 1\.25 loads IR version 13 and opset 26 at most"):
        lowest_release([held])


def test_the_table_only_grows() -> None:
    rows = [*READS.values()]
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(rows))


def model_of(ir: int, opset: int, *inputs: str) -> onnx.ModelProto:
    """A norm with these inputs inside the branch of an If."""
    branch = helper.make_graph(
        [helper.make_node("LayerNormalization", inputs, ["y"])],
        "branch",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
    )
    graph = helper.make_graph(
        [helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)], "g", [], []
    )
    domains = [helper.make_opsetid("com.microsoft", 99), helper.make_opsetid("", opset)]
    return helper.make_model(graph, ir_version=ir, opset_imports=domains)


def test_held_is_read_from_the_model_also_inside_branches() -> None:
    assert held_by(model_of(8, 18, "x", "scale", "shift")) == Held(8, 18)
    for inputs in (("x", "scale"), ("x", "scale", "")):
        assert held_by(model_of(10, 20, *inputs)) == Held(10, 20, norm_without_bias=True)


# stated ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"plan": ADAPTIVE}, {"plan": ADAPTIVE, "dispatch": "host"}], ids=str)
def test_the_manifest_states_it(exported: Exported, options: dict[str, Any]) -> None:
    bundle = exported(make_config(), with_depth=True, **options)
    form = json.loads((bundle / "manifest.json").read_text())["target_form"]
    assert form == {"lowest_runtime": "1.16", "fast_tail": False}
    assert {ir_version(path) for path in bundle.glob("*.onnx")} == {8}


def test_verify_finds_a_claim_that_is_too_low(tiny_bundle: Path, tmp_path: Path) -> None:
    def raise_opset(edit: OnnxEdit) -> None:
        for model in edit.models.values():
            model.ir_version = 10

    newer = edited_onnx(tiny_bundle, tmp_path, raise_opset)
    found = verify(newer, tiny_bundle.parent / "checkpoint", limit=1).structure["violations"]
    assert found == ["the manifest says that ONNX Runtime 1.16 runs the graphs, they require 1.18"]


# checked ---------------------------------------------------------------------------------------------------


def test_an_older_runtime_is_refused_before_loading(
    tiny_bundle: Path, tmp_path: Path, image_files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = stating(tiny_bundle, tmp_path, "1.19")
    pretend(monkeypatch, "1.18.1")
    expected = (
        rf"{re.escape(str(bundle))} requires onnxruntime 1\.19 or newer, got 1\.18\.1; run `.*>=1\.19\"`"
    )
    with pytest.raises(TargetError, match=expected):
        open_bundle(bundle)
    assert re.search(expected, refused("predict", bundle, image_files[0]))


def test_a_host_dispatched_bundle_is_refused_too(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = exported(make_config(), plan=ADAPTIVE, dispatch="host", with_depth=True)
    pretend(monkeypatch, "1.15.1")
    for bucket in (None, "b0"):
        with pytest.raises(TargetError, match=r"requires onnxruntime 1\.16 or newer, got 1\.15\.1"):
            open_bundle(bundle, bucket=bucket)


@pytest.mark.parametrize("version", ["1.19.0.dev20240801", "1.19.0rc1", "1.19.2+cpu"])
def test_a_suffix_of_the_version_does_not_matter(
    tiny_bundle: Path, tmp_path: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort, "__version__", version)
    with open_bundle(stating(tiny_bundle, tmp_path, "1.19")) as session:
        assert session.manifest.target == "onnx"


@pytest.mark.parametrize("lowest", ["newest", "1", "1.16.3.1", ">=1.16", "1.x", "", 1.16, ["1.16"], "1.16\n"])
def test_a_malformed_value_is_explained(tiny_bundle: Path, tmp_path: Path, lowest: object) -> None:
    with pytest.raises(BundleError, match=r"target_form\.lowest_runtime: got "):
        open_bundle(stating(tiny_bundle, tmp_path, lowest))


def test_a_bundle_without_the_value_opens(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = stating(tiny_bundle, tmp_path, None)
    with open_bundle(older):
        assert lowest_of(older, open_manifest(older)) == "1.16"
    pretend(monkeypatch, "1.15.1")
    with pytest.raises(TargetError, match=r"1\.16 or newer, got 1\.15\.1"):
        open_bundle(older)


@pytest.mark.parametrize(("ir", "lowest"), [(10, "1.19"), (99, None)])
def test_the_ir_version_tells_of_a_bundle_without_biases(
    tiny_bundle: Path, tmp_path: Path, ir: int, lowest: str | None
) -> None:
    older = stating(tiny_bundle, tmp_path, None)
    model = onnx.load(older / "model.onnx", load_external_data=False)
    model.ir_version = ir  # 10: as exported before every norm had a bias
    onnx.save_model(model, older / "model.onnx")
    fields = json.loads((older / "manifest.json").read_text())
    files = describe_files(older, [file["path"] for file in fields["files"]])
    fields["files"] = [file.model_dump() for file in files]
    (older / "manifest.json").write_text(json.dumps(fields))
    assert lowest_of(older, open_manifest(older)) == lowest


@pytest.mark.parametrize("start", [b"", b"\x08", b"\x3a\x08graph", b"\x08\xff\xff"], ids=repr)
def test_a_file_that_says_no_ir_version(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(start)
    assert ir_version(tmp_path / "model.onnx") is None


# doctor ----------------------------------------------------------------------------------------------------


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports take a quarter of a minute: here all succeed."""
    monkeypatch.setattr("morvit_deploy.machine.diagnosis.try_imports", lambda names: dict.fromkeys(names, ""))


@pytest.mark.usefixtures("imports")
def test_doctor_says_that_a_bundle_runs_here(tiny_bundle: Path) -> None:
    found = answer("doctor", tiny_bundle)["bundle"]
    assert found["required"] == [{"library": "onnxruntime", "lowest": "1.16", "installed": ort.__version__}]
    assert found["problems"] == found["warnings"] == [] and found["runs_here"] == "ONNX Runtime on the CPU"
    assert answer("doctor")["bundle"] is None


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize(("version", "got"), [("1.18.1", "got 1.18.1"), (None, "it is not installed")])
def test_doctor_says_what_is_missing(
    tiny_bundle: Path, tmp_path: Path, version: str | None, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dependencies.installed
    monkeypatch.setattr(
        dependencies, "installed", lambda name: version if name == "onnxruntime" else real(name)
    )
    bundle = stating(tiny_bundle, tmp_path, "1.19")
    result = run("doctor", bundle)
    assert result.exit_code == 1
    assert f"requires onnxruntime 1.19 or newer, {got}; run `" in " ".join(result.stdout.split())
    core_is_whole = version is not None  # otherwise that is the error
    assert (f"{bundle} does not run here: requires onnxruntime 1.19" in result.stderr) is core_is_whole


@pytest.mark.parametrize("given", ["absent", "examples/digits-expert"])
def test_doctor_refuses_what_is_no_bundle(given: str) -> None:
    assert "`morvit-deploy export`" in refused("doctor", ROOT / given)
