"""Target trt: what a bundle holds, with engines really built by TensorRT-RTX where it is, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from bucket_plans import TOKEN, depth_ladder, threshold_ladder
from commands import run
from onnx import TensorProto, helper, numpy_helper
from tiny_models import make_config, random_pixels
from trt_reader import tensorrt_complaints

from morvit_deploy import export
from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.errors import BundleError, ConfigError, TargetError
from morvit_deploy.exporters.onnx.low.bfloat import rounded_in_fp32
from morvit_deploy.exporters.targets import open_bundle
from morvit_deploy.exporters.trt.build import build_here
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.proof import prove_engines
from morvit_deploy.exporters.trt.run import graphs_of
from morvit_deploy.exporters.verification import verify
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import Plan

Exported = Callable[..., Path]
CONFIG = make_config()
LADDER = threshold_ladder()
BF16_STEP = 2.0**-8  # the largest relative error of rounding to bf16


def needs_rtx() -> None:
    pytest.importorskip("tensorrt_rtx", reason="the rtx extra, where NVIDIA has a wheel of it")


def recipe_of(exported: Exported, config: Config = CONFIG, plan: Plan | None = None, **options: Any) -> Path:
    """A bundle without engines, whatever is installed."""
    options = {"precision": "fp32", "flavor": "tensorrt", **options}
    return exported(config, target="trt", plan=plan, **options)


@pytest.mark.parametrize("dispatch", ["graph", "host"])
def test_rtx_builds_engines_without_a_gpu(exported: Exported, dispatch: str) -> None:
    needs_rtx()
    bundle = exported(CONFIG, target="trt", flavor="rtx", plan=LADDER, dispatch=dispatch, allow_worse=True)
    manifest = open_manifest(bundle)
    names = ["model"] if dispatch == "graph" else ["stem", "b0", "b1", "full"]
    structure = manifest.structure
    assert manifest.precision == "fp16" and TrtForm.of(manifest).flavor == "rtx"
    assert structure["proved"] and [engine["name"] for engine in structure["engines"]] == names
    sizes = [(bundle / "build" / engine["engine"]).stat().st_size for engine in structure["engines"]]
    assert sizes == [engine["bytes"] for engine in structure["engines"]]
    assert structure["engine_bytes"] == sum(sizes) and structure["built_with"]["flavor"] == "rtx"
    for bucket in ("b0", "b1", "full"):
        whole = structure["in_fp32"][bucket]
        assert {"LayerNormalization", "Softmax", "Sigmoid"} <= {*whole} and "MatMul" not in whole
    listed = {file.path for file in manifest.files}
    assert {"build/weights.bin", "build/build.json", "build/build.py"} <= listed
    assert not any(name.endswith(".engine") for name in listed), "another machine builds its own"
    built = build_here(bundle)
    assert [engine["name"] for engine in built["engines"]] == names
    assert [(bundle / "build" / f"{name}.engine").stat().st_size for name in names] == sizes, "kept"


def test_a_recipe_is_no_engine(exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)  # whatever this machine has
    bundle = recipe_of(exported)
    assert not list(bundle.rglob("*.engine")) and not (bundle / "build" / "engines.json").exists()
    assert open_manifest(bundle).structure["engines"] == []
    done = export(
        bundle.parent / "checkpoint", tmp_path / "again", target="trt", flavor="tensorrt", allow_worse=True
    )
    (warning,) = (line for line in done.warnings if line.startswith("no engine was built"))
    assert "python3 build/build.py" in warning and "morvit-deploy build" in warning
    with pytest.raises(TargetError, match=r"no TensorRT for this Python.*pip install tensorrt"):
        build_here(bundle, flavor="tensorrt")


def test_the_recipe_is_carried_out_for_another_flavor(exported: Exported, tmp_path: Path) -> None:
    """What `python build.py --flavor rtx` does in a bundle that was exported for TensorRT."""
    needs_rtx()
    bundle = Path(shutil.copytree(recipe_of(exported), tmp_path / "bundle"))
    told: list[str] = []
    record = build_here(bundle, flavor="rtx", compute_capability=("SM86", "SM89"), tell=told.append)
    assert record["engines"][0]["compute_capability"] == ["SM86", "SM89"] and any(
        "%" in line for line in told
    )
    open_manifest(bundle)  # engines of this machine do not make it another bundle
    verify(bundle, recipe_of(exported).parent / "checkpoint")
    build_here(bundle, flavor="rtx", compute_capability=("SM86", "SM89"), tell=told.append)
    assert told[-1] == "model is up to date"
    (bundle / "build" / "weights.bin").write_bytes(b"others")
    with pytest.raises(BundleError, match=r"build/weights\.bin: 6 bytes"):
        build_here(bundle, flavor="rtx")


PARSED: dict[str, tuple[Config, Plan | None, dict[str, Any]]] = {
    "expert, fp16": (CONFIG, None, {"precision": "fp16"}),
    "expert, all keys, bf16": (make_config(attention_scope="all"), None, {"precision": "bf16"}),
    "expert, batch 4, depth": (CONFIG, None, {"batch": 4, "with_depth": True}),
    "expert, dynamic, float": (CONFIG, None, {"batch": "dynamic", "max_batch": 4, "input": "float"}),
    "flat, fp16": (make_config(routing="expert_choice_flat"), None, {"precision": "fp16"}),
    "dense, bf16": (make_config(routing="none"), None, {"precision": "bf16"}),
    "thresholds, graph, bf16": (CONFIG, LADDER, {"precision": "bf16", "dispatch": "graph"}),
    "thresholds, host, fp16": (CONFIG, LADDER, {"precision": "fp16", "dispatch": "host"}),
    "token, graph, fp16": (TOKEN, depth_ladder(), {"precision": "fp16", "dispatch": "graph"}),
    "token, host": (TOKEN, depth_ladder(), {"dispatch": "host", "with_depth": True}),
    "expert, int8": (CONFIG, None, {"precision": "int8"}),
    "thresholds, graph, int8": (CONFIG, LADDER, {"precision": "int8", "dispatch": "graph"}),
}


@pytest.mark.parametrize("case", PARSED)
def test_tensorrt_parses_every_graph(exported: Exported, calibration_folder: Path, case: str) -> None:
    needs_rtx()
    config, plan, options = PARSED[case]
    if options.get("precision") == "int8":
        options = {**options, "images": calibration_folder}
    if options.get("precision", "fp32") != "fp32":
        options = {**options, "allow_worse": True}  # tiny random models: gates are for trained ones
    bundle = recipe_of(exported, config, plan, **options)
    graphs = sorted(path.name for path in (bundle / "build").glob("*.onnx"))
    assert graphs == (["model.onnx"] if options.get("dispatch") != "host" else graphs) and graphs
    for name in graphs:
        assert tensorrt_complaints(bundle / "build", build=False, name=name) == []
    recipe = json.loads((bundle / "build" / "build.json").read_text())
    assert recipe["precision"] == options.get("precision", "fp32")
    if (lowering := open_manifest(bundle).lowering) is not None:
        assert lowering.flavor == ("trt" if recipe["precision"] == "int8" else None)


def test_bf16_answers_are_rounded_as_the_graph_says(exported: Exported) -> None:
    """ONNX Runtime multiplies no bf16: the rewritten graph differs from fp32 by bf16's rounding, and not by less."""
    whole, narrow = recipe_of(exported), recipe_of(exported, precision="bf16", allow_worse=True)
    pixels = random_pixels(CONFIG, 4)
    with open_bundle(whole) as session:
        expected = session.logits(pixels)
    with open_bundle(narrow) as session:
        assert "it has no bf16 kernels" in session.runner.runtime
        found = session.logits(pixels)
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert BF16_STEP / 100 < error < 10 * BF16_STEP
    weights = onnx.load(narrow / "build" / "model.onnx").graph.initializer
    kinds = {init.name: init.data_type for init in weights if "." in init.name}
    assert kinds["first.fc1.weight"] == TensorProto.BFLOAT16
    assert {kind for name, kind in kinds.items() if name.startswith("routers.")} == {TensorProto.FLOAT}


def test_each_bf16_value_is_rounded_once() -> None:
    weight = helper.make_tensor("w", TensorProto.BFLOAT16, [2, 2], [1.0, 2.0, 3.0, 4.0])
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("MatMul", ["narrow", "w"], ["product"]),
        helper.make_node("Transpose", ["product"], ["turned"], perm=[1, 0]),
        helper.make_node("Cast", ["turned"], ["y"], to=TensorProto.FLOAT),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", [ports[0]], [ports[1]], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(
        rounded_in_fp32(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.array([[1.003, 257.0], [0.1, 3.14159]], np.float32)

    def rounded(values: np.ndarray) -> np.ndarray:
        made = numpy_helper.from_array(values, "v")
        kind = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
        return numpy_helper.to_array(made).astype(kind).astype(np.float32)

    expected = rounded(rounded(x) @ np.array([[1, 2], [3, 4]], np.float32)).T
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], expected)


def test_damaged_and_swollen_engines_are_violations(exported: Exported, tmp_path: Path) -> None:
    from fake_cuda import put_engines

    bundle = Path(shutil.copytree(recipe_of(exported), tmp_path / "bundle"))
    build, manifest = bundle / "build", graphs_of(open_manifest(bundle))
    put_engines(bundle)
    facts = prove_engines(build, manifest, weight_bytes=1000, nodes=10)
    assert facts["violations"] == [] and facts["built_with"]["tensorrt"] == "10.3.0"
    (found,) = prove_engines(build, manifest, weight_bytes=10, nodes=0)["violations"]
    assert "weights are in it more than once" in found
    (build / "model.engine").write_bytes(b"torn")
    (found,) = prove_engines(build, manifest, 1000, 10)["violations"]
    assert "sha256 differs" in found
    assert not verify(bundle, recipe_of(exported).parent / "checkpoint").passed


def test_an_edited_bundle_is_refused(exported: Exported, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(recipe_of(exported), tmp_path / "bundle"))
    with (bundle / "build" / "build.json").open("a") as file:
        file.write(" ")
    for use in (open_bundle, build_here):
        with pytest.raises(BundleError, match=r"build/build\.json"):
            use(bundle)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"target": "onnx", "precision": "bf16"}, "got 'bf16'; target onnx has .*; only TensorRT runs it"),
        (
            {"target": "coreml", "precision": "bf16"},
            "got 'bf16'; target coreml has .*; only TensorRT runs it",
        ),
        ({"target": "trt", "precision": "int8"}, "got 'int8' without images"),
        ({"target": "trt", "precision": "int8", "int8_flavor": "cpu"}, "only symmetric int8"),
        ({"target": "trt", "precision": "fp16", "int8_flavor": "trt"}, "int8_flavor: only int8 has this"),
        ({"target": "trt", "ios": 18}, "ios: only target coreml has this; target is 'trt'"),
        ({"target": "onnx", "flavor": "rtx"}, "flavor: only target trt has this; target is 'onnx'"),
        ({"target": "trt", "max_batch": 8}, "max_batch: got 8 with batch 1; it is for batch 'dynamic'"),
        (
            {"target": "trt", "flavor": "rtx", "version_compatible": True},
            "not supported by flavor 'rtx'",
        ),
        (
            {"target": "trt", "flavor": "rtx", "precision": "fp32", "compute_capability": ("SM75",)},
            "supports only fp16",
        ),
    ],
)
def test_bad_options_are_one_message(
    tiny_checkpoint: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        export(tiny_checkpoint, tmp_path / "bundle", **options)
    assert not (tmp_path / "bundle").exists()


def test_a_gpu_that_rtx_does_not_build_for(tiny_checkpoint: Path, tmp_path: Path) -> None:
    needs_rtx()
    with pytest.raises(TargetError, match=r"got SM87; TensorRT-RTX .* builds for SM75, .*SM89"):
        export(tiny_checkpoint, tmp_path / "b", target="trt", flavor="rtx", compute_capability=("SM87",))


def test_the_manifest_says_what_the_recipe_asks(
    exported: Exported, tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = recipe_of(exported)
    with pytest.raises(BundleError, match="which has no engines to build"):
        build_here(tiny_bundle)
    copy = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    fields = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(fields | {"target_form": {}}))
    with pytest.raises(BundleError, match=r"target_form\.flavor: missing"):
        open_manifest(copy)
    assert load_checkpoint(bundle.parent / "checkpoint").config == open_manifest(bundle).config


def test_the_command_line(exported: Exported, inside: Path) -> None:
    checkpoint = recipe_of(exported).parent / "checkpoint"
    asked = ("--target", "trt", "--flavor", "tensorrt", "--precision", "fp32", "--version-compatible")
    answer = run("export", checkpoint, *asked, "--json")
    assert answer.exit_code == 0, answer.output
    assert "no engine was built: TensorRT is not installed here" in answer.stderr
    manifest = json.loads(answer.stdout)["manifest"]
    assert manifest["target_form"]["version_compatible"] and manifest["target"] == "trt"
    refused = run("export", checkpoint, "--target", "onnx", "--flavor", "rtx", "-o", "other")
    assert refused.exit_code == 2 and "only target trt has this" in refused.stderr
    refused = run("bench", "build/checkpoint-trt", "--device", "cpu")
    assert refused.exit_code == 2 and "--device cuda" in refused.stderr
