"""The written graph holds nothing that an old runtime or TensorRT's parser refuses, and computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from adaptive_plans import depth_plan, threshold_plan
from onnx import TensorProto, helper, numpy_helper
from tiny_models import make_config

from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.portable import make_portable

Exported = Callable[..., Path]
FLOAT, INT32, UINT8 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT8
PLANS = {
    "thresholds": (make_config(), threshold_plan(make_config(), (0.1, 0.0, 0.2), [(9, 5, 2)])),
    "depths": (
        make_config(routing="token_choice"),
        depth_plan(make_config(routing="token_choice"), [(16, 8, 5, 3, 1)]),
    ),
}


@pytest.mark.parametrize("dispatch", ["graph", "host"])
@pytest.mark.parametrize("name", PLANS)
def test_nothing_that_a_runtime_refuses_is_written(exported: Exported, name: str, dispatch: str) -> None:
    config, plan = PLANS[name]
    bundle = exported(config, plan=plan, dispatch=dispatch, with_depth=True)
    for path in bundle.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        types = {
            init.name: init.data_type for graph in every_graph(model.graph) for init in graph.initializer
        }
        for graph in every_graph(model.graph):
            made = {name: node for node in graph.node for name in node.output}
            for node in graph.node:
                assert node.op_type not in ("Pad", "Gelu")
                if node.op_type == "LayerNormalization":
                    assert types[node.input[2]] == FLOAT
                if node.op_type == "Cast" and node.attribute[0].i == UINT8:
                    assert made[node.input[0]].attribute[0].i == FLOAT


def piece() -> onnx.ModelProto:
    """A norm without a bias, GELU as the exporter writes it, and a cast from int32 to uint8."""
    nodes = [
        helper.make_node("LayerNormalization", ["x", "scale"], ["normed"]),
        helper.make_node("Div", ["normed", "root"], ["divided"]),
        helper.make_node("Erf", ["divided"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["more"]),
        helper.make_node("Mul", ["half", "more"], ["halved"]),
        helper.make_node("Mul", ["normed", "halved"], ["y"]),
        helper.make_node("Cast", ["count"], ["bytes"], to=UINT8),
    ]
    held = {"scale": np.ones(8), "root": np.sqrt(2.0), "one": 1.0, "half": 0.5}
    initializers = [numpy_helper.from_array(np.float32(value), name) for name, value in held.items()]
    ports = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("x", FLOAT, [3, 8]), ("count", INT32, [4]), ("y", FLOAT, [3, 8]), ("bytes", UINT8, [4])
        )
    ]  # fmt: skip
    graph = helper.make_graph(nodes, "piece", ports[:2], ports[2:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_values_stay_as_they_are() -> None:
    before, after = piece(), piece()
    make_portable(after)
    onnx.checker.check_model(after, full_check=True)
    given = {
        "x": np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32),
        "count": np.array([0, 1, 200, 255], np.int32),
    }
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found = [
        ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"]).run(None, given)
        for model in (before, after)
    ]
    for old, new in zip(*found, strict=True):
        np.testing.assert_array_equal(old, new)  # halving is exact


def test_runtimes_recognise_gelu(tmp_path: Path) -> None:
    model = piece()
    make_portable(model)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    found = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert "Gelu" in found and "Erf" not in found
