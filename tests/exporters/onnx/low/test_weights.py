"""Bundles with weights in blocks, w8 and w4, and fp32 bundles with a fast tail: stored, proved and refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from bucket_plans import EXPERT, threshold_ladder
from onnx import external_data_helper, numpy_helper
from places import EXAMPLES
from tiny_models import make_config, random_model, random_pixels

from morvit_deploy import export, open_bundle
from morvit_deploy.bundle.manifest import describe_files, open_manifest
from morvit_deploy.errors import BundleError, ConfigError, PrecisionError
from morvit_deploy.exporters.onnx.export import OnnxExporter
from morvit_deploy.exporters.onnx.form import OnnxForm
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.macs import count_macs
from morvit_deploy.exporters.onnx.low import weights
from morvit_deploy.exporters.onnx.low.speed import Speed
from morvit_deploy.exporters.onnx.proof import prove
from morvit_deploy.exporters.verification import options_of, verify
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.model.answers.gates import GATES
from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from morvit_deploy.model.choices import Precision

WIDE: dict[str, Any] = {"embed_dim": 64, "mlp_dim": 128, "num_heads": 4}
LATE = make_config(**WIDE, capacity=[16, 6, 3])  # the first step has 17 rows, more than FEW_ROWS
Exported = Callable[..., Path]
Plant = Callable[[onnx.ModelProto], None]


@pytest.fixture(scope="module", autouse=True)
def no_clock() -> Iterator[None]:
    """Timings have no place in tests: every speed check answers the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            weights,
            "measure_speed",
            lambda floats, low, plan, feeds: {b.name: Speed(2.0, 1.0, 0.5) for b in plan.buckets},
        )
        yield


@pytest.fixture
def w8(exported: Exported) -> Path:
    return exported(LATE, precision="w8", allow_worse=True)


@pytest.fixture
def tail(exported: Exported) -> Path:
    return exported(LATE, fast_tail=True, allow_worse=True)


def initializers(bundle: Path) -> dict[str, onnx.TensorProto]:
    model = onnx.load(bundle / "model.onnx", load_external_data=False)
    return {init.name: init for graph in every_graph(model.graph) for init in graph.initializer}


@pytest.mark.parametrize("precision", ["w8", "w4"])
def test_every_layer_but_the_routers_is_in_blocks_once(exported: Exported, precision: str) -> None:
    bundle = exported(LATE, precision=precision, allow_worse=True)
    manifest = open_manifest(bundle)
    assert manifest.precision == precision and manifest.structure["proved"]
    assert manifest.macs == {bucket.name: bucket.macs for bucket in manifest.plan.buckets}
    (macs,) = manifest.macs.values()
    assert count_macs(onnx.load(bundle / "model.onnx", load_external_data=False)) == macs
    held = initializers(bundle)
    floats = {name for name in held if name.endswith(".weight") and len(held[name].dims) == 2}
    kept = {f"routers.{step}.0.weight" for step in range(3)}
    assert floats == kept | ({"stem.patch.weight"} if precision == "w4" else set())
    assert isinstance(manifest.target_form, OnnxForm)
    assert manifest.target_form.lowest_runtime == {"w8": "1.23", "w4": "1.17"}[precision]
    assert manifest.lowering is not None
    stored = {"w8": {"8 bits": 16}, "w4": {"4 bits": 15, "float": 1}}[precision]
    assert manifest.lowering.facts["stored"] == stored
    assert sum(1 for name in held if name.endswith("_blocks")) == 16 - stored.get("float", 0)
    result = verify(bundle, bundle.parent / "checkpoint", min_agreement=0.0)
    assert result.passed, result.failure
    with open_bundle(bundle, threads=1) as session:
        assert session.logits(random_pixels(LATE, 3)).shape == (3, LATE.num_classes)


@pytest.mark.parametrize(
    "options",
    [
        {"dispatch": "graph"},
        {"dispatch": "graph", "batch": "dynamic"},
        {"dispatch": "host", "batch": "dynamic"},
    ],
    ids=str,
)
def test_buckets_share_the_blocks(exported: Exported, options: dict[str, Any]) -> None:
    config = EXPERT
    bundle = exported(config, plan=threshold_ladder(), precision="w8", allow_worse=True, **options)
    assert open_manifest(bundle).structure["proved"]
    places: dict[str, set[int]] = {}
    for path in bundle.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        for init in (init for graph in every_graph(model.graph) for init in graph.initializer):
            if init.name.endswith("_blocks"):
                places.setdefault(init.name, set()).add(external_data_helper.ExternalDataInfo(init).offset)
    assert len(places) >= 12 and all(len(offsets) == 1 for offsets in places.values())
    result = verify(bundle, bundle.parent / "checkpoint", min_agreement=0.0)
    assert result.passed, result.failure


@pytest.mark.parametrize(
    ("model", "precision"),
    [("digits-expert", "w8"), ("digits-token", "w8"), ("digits-token", "w4")],
)
def test_a_trained_model_passes_its_gate(model: str, precision: Precision, tmp_path: Path) -> None:
    """Judged on shipped pictures, without being let through; none is used to make it."""
    options: dict[str, Any] = {"images": EXAMPLES / "digits-test", "limit": 32}
    found = export(EXAMPLES / model, tmp_path / "out", precision=precision, **options)
    assert found.verification.passed and found.verification.gate == GATES[precision]
    assert found.manifest.lowering is not None and found.manifest.lowering.images == 0


def test_four_bits_are_refused_where_a_trained_model_loses_decisions(tmp_path: Path) -> None:
    options: dict[str, Any] = {"images": EXAMPLES / "digits-test", "limit": 32}
    with pytest.raises(PrecisionError, match=r"--precision w8 keeps more.*--allow-worse keeps it") as caught:
        export(EXAMPLES / "digits-expert", tmp_path / "out", precision="w4", **options)
    assert "w4, step 1: got token agreement 9" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_fast_tail_reads_blocks_where_rows_are_few(tail: Path) -> None:
    manifest = open_manifest(tail)
    assert manifest.precision == "fp32" and not manifest.exact and manifest.structure["proved"]
    assert manifest.gate(None) == GATES["int8"] and manifest.target_form.said == "fast tail"
    held = initializers(tail)
    assert {"cycle.0.fc1.weight", "cycle.0.fc1.weight_blocks", "first.fc1.weight"} <= {*held}
    assert "first.fc1.weight_blocks" not in held, "it is applied to 17 rows"
    result = verify(tail, tail.parent / "checkpoint", min_agreement=0.0)
    assert result.passed and result.gate is not None, result.failure


def test_a_fast_tail_that_is_slower_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(random_model(LATE), tmp_path / "checkpoint")
    monkeypatch.setattr(weights, "measure_speed", lambda *_: {"topk": Speed(1.0, 1.5, 1.5)})
    with pytest.raises(PrecisionError, match=r"(?s)without --fast-tail.*fast tail takes 1\.50 times as long"):
        export(tmp_path / "checkpoint", tmp_path / "out", fast_tail=True, min_agreement=0.0)


@pytest.mark.parametrize(
    ("config", "options", "named"),
    [
        (
            LATE,
            {"precision": "int8", "images": EXAMPLES / "digits-test"},
            "only fp32 has this; precision is 'int8'",
        ),
        (LATE, {"precision": "w8"}, "only fp32 has this; precision is 'w8'"),
        (LATE, {"target": "trt"}, "fast_tail: only target onnx has this"),
        (LATE, {"batch": "dynamic"}, "got batch 'dynamic'"),
        (LATE, {"batch": 64}, "no step runs on at most 16 tokens in a run"),
        (LATE, {"form": "masked"}, "baselines are exported without it"),
        (make_config(**WIDE, routing="none"), {}, "no step runs on at most 16 tokens in a run"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_a_fast_tail_that_is_none_is_refused(
    config: Any, options: dict[str, Any], named: str, tmp_path: Path
) -> None:
    save_checkpoint(random_model(config), tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match=named):
        export(tmp_path / "checkpoint", tmp_path / "out", fast_tail=True, **options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"precision": "w8", "target": "coreml"}, "target 'onnx'.*weights='int8' .coreml"),
        ({"precision": "w4", "target": "trt"}, "target trt has fp32, fp16, int8, bf16; .*target 'onnx'"),
        ({"precision": "w8", "calibration": "minmax"}, "calibration: only int8 has this; precision is 'w8'"),
        ({"precision": "w4", "smooth": True}, "smooth: only int8 has this; precision is 'w4'"),
        ({"precision": "w8", "form": "masked"}, "baselines are exported in fp32"),
        ({"precision": "w3"}, "expected one of fp32"),
    ],
    ids=str,
)
def test_what_blocks_have_no_form_for_is_refused(options: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=named):
        export(tmp_path / "checkpoint", tmp_path / "out", **options)


def test_a_model_without_a_multiple_of_16_inputs_is_refused(tmp_path: Path) -> None:
    config = make_config(embed_dim=24, mlp_dim=40, num_heads=2, image_size=30, patch_size=5)
    save_checkpoint(random_model(config), tmp_path / "checkpoint")
    with pytest.raises(ConfigError, match="no layer has a multiple of 16 inputs"):
        export(tmp_path / "checkpoint", tmp_path / "out", precision="w8")


def with_byte(bundle: Path, name: str, folder: Path) -> Path:
    """A copy in which one byte of an initializer is another."""
    copy = Path(shutil.copytree(bundle, folder / "bundle"))
    place = external_data_helper.ExternalDataInfo(initializers(copy)[name]).offset
    content = bytearray((copy / "weights.bin").read_bytes())
    content[place + 7] ^= 0x10
    (copy / "weights.bin").write_bytes(content)
    return copy


def test_one_other_byte_is_named(w8: Path, tmp_path: Path) -> None:
    copy = with_byte(w8, "cycle.0.fc1.weight_blocks", tmp_path)
    with pytest.raises(BundleError, match=r"weights\.bin: content differs"):
        verify(copy, w8.parent / "checkpoint")
    fields = json.loads((copy / "manifest.json").read_text())
    (weights_file,) = describe_files(copy, ["weights.bin"])
    fields["files"] = [
        weights_file.model_dump() if one["path"] == "weights.bin" else one for one in fields["files"]
    ]
    (copy / "manifest.json").write_text(json.dumps(fields))
    result = verify(copy, w8.parent / "checkpoint", min_agreement=0.0)
    assert not result.passed
    assert "1 of 8,192 elements are not the nearest to those of 'cycle.0.fc1.weight'" in result.failure


def proved(bundle: Path, plant: Plant, folder: Path) -> str:
    manifest = open_manifest(bundle)
    model = load_checkpoint(bundle.parent / "checkpoint")
    graphs = build_graphs("unrolled", model, manifest.plan, options_of(OnnxExporter(), manifest))
    edited = onnx.load(bundle / "model.onnx")
    plant(edited)
    onnx.save_model(edited, folder / "model.onnx")
    return "\n".join(prove(folder, manifest, graphs).violations)


def change(name: str, how: Callable[[Any], Any]) -> Plant:
    def plant(model: onnx.ModelProto) -> None:
        init = next(init for init in model.graph.initializer if init.name == name)
        init.CopyFrom(numpy_helper.from_array(how(numpy_helper.to_array(init).copy()), name))

    return plant


def second_copy(model: onnx.ModelProto) -> None:
    readers = [node for node in model.graph.node if "cycle.0.fc1.weight_blocks" in node.input]
    for init in [init for init in model.graph.initializer if init.name == readers[0].input[1]]:
        model.graph.initializer.add().CopyFrom(init)
        model.graph.initializer[-1].name = "planted"
    readers[1].input[1] = "planted"


def float_copy(model: onnx.ModelProto) -> None:
    scales = next(init for init in model.graph.initializer if init.name == "cycle.0.fc1.weight_scales")
    values = np.zeros((64, 128), np.float32)
    assert scales.dims
    model.graph.initializer.append(numpy_helper.from_array(values, "planted"))


def four_bits(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        if "cycle.0.fc1.weight_blocks" in node.input:
            next(one for one in node.attribute if one.name == "bits").i = 4


@pytest.mark.parametrize(
    ("plant", "named"),
    [
        (
            change("first.fc1.weight_scales", lambda array: array * np.float32(1.05)),
            "'first.fc1.weight_blocks' is in blocks and stands for no weight of the model",
        ),
        (second_copy, "weight 'cycle.0.fc1.weight' is stored 2 times"),
        (float_copy, "'planted' [64, 128] is no weight of the model"),
        (four_bits, "got codes (128, 1, 64)"),
    ],
    ids=["scale", "second copy", "float copy", "bits"],
)
def test_a_planted_defect_is_named(w8: Path, plant: Plant, named: str, tmp_path: Path) -> None:
    assert proved(w8, lambda model: None, tmp_path) == ""
    assert named in proved(w8, plant, tmp_path)


def test_a_late_product_that_reads_the_float_weight_is_named(tail: Path, tmp_path: Path) -> None:
    """And an early one that reads the copy."""

    def plant(model: onnx.ModelProto) -> None:
        early = next(node for node in model.graph.node if "cycle.0.fc2.weight" in node.input)
        late = [node for node in model.graph.node if "cycle.0.fc2.weight_blocks" in node.input]
        early.op_type, early.domain = late[0].op_type, late[0].domain
        early.attribute.extend(late[0].attribute)
        early.input[:] = [early.input[0], *late[0].input[1:]]

    assert "of 17 rows, reads 'cycle.0.fc2.weight_blocks' in 8 bits, expected float" in proved(
        tail, plant, tmp_path
    )
