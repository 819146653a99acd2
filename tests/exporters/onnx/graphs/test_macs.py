"""Shapes and MACs of a graph do not need its weights, only their shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from morvit_deploy.exporters.onnx.graphs.graphs import copy_without
from morvit_deploy.exporters.onnx.graphs.macs import count_macs, infer_shapes

WIDE = 300


@pytest.fixture
def model() -> onnx.ModelProto:
    """A product with a weight of 360 kB, reshaped by numbers that are stored."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["y"]),
        helper.make_node("Reshape", ["y", "shape"], ["z"]),
    ]
    held = {"weight": np.ones((WIDE, WIDE), np.float32), "shape": np.array([WIDE, 5])}
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [5, WIDE]), ("z", None))
    ]
    initializers = [numpy_helper.from_array(array, name) for name, array in held.items()]
    graph = helper.make_graph(nodes, "by hand", values[:1], values[1:], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_a_weight_counts_by_its_shape_and_is_not_copied(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    own = shape_inference.infer_shapes

    def recorded(given: onnx.ModelProto, **how: Any) -> onnx.ModelProto:
        sizes.append(given.ByteSize())
        return own(given, **how)

    monkeypatch.setattr(shape_inference, "infer_shapes", recorded)
    before = model.SerializeToString()
    shapes = infer_shapes(model)
    assert shapes == {
        "x": (5, WIDE), "y": (5, WIDE), "z": (WIDE, 5), "weight": (WIDE, WIDE), "shape": (2,),
    }  # fmt: skip
    assert sizes == [pytest.approx(300, abs=300)], "bytes, without the weight"
    assert model.SerializeToString() == before
    assert count_macs(model, shapes) == count_macs(model) == 5 * WIDE * WIDE


def test_a_copy_without_weights_can_be_edited(model: onnx.ModelProto) -> None:
    copy = copy_without(model, {"weight"})
    assert [init.name for init in copy.graph.initializer] == ["shape"]
    assert (copy.ir_version, copy.opset_import) == (model.ir_version, model.opset_import)
    copy.graph.node[0].input[0] = "other"
    assert model.graph.node[0].input[0] == "x" and len(model.graph.initializer) == 2
    assert copy_without(model, ()).graph == model.graph
