"""Why hidden keys have a finite number: TensorRT-RTX takes minus infinity for padding and measures it in kernels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from morvit_deploy.agent.trt import build as trt_build
from morvit_deploy.graph.maths.dispatch import HIDDEN

HEADS, TOKENS, WIDTH = 12, 41, 64  # of morvit_b16: attention with narrower heads is not fused
KERNEL = b"__global__"  # begins each kernel's source


def test_masks_cost_few_kernels(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="the rtx extra, where NVIDIA has a wheel of it")
    assert kernels(HIDDEN, tmp_path) <= 3 < 6 <= kernels(float("-inf"), tmp_path)


def kernels(hidden: float, folder: Path) -> int:
    """Number of kernel sources in an engine of one masked attention."""
    onnx.save(attention(hidden), folder / "model.onnx")
    _, trt = trt_build.load_tensorrt("rtx")
    builder = trt.Builder(trt_build.new_log(trt))
    network = builder.create_network(trt_build.network_flags(trt))
    assert trt.OnnxParser(network, trt_build.new_log(trt)).parse_from_file(str(folder / "model.onnx"))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    return bytes(memoryview(builder.build_serialized_network(network, config))).count(KERNEL)


def attention(hidden: float) -> onnx.ModelProto:
    """Attention as the static graph writes it, of tokens whose score reaches zero."""
    nodes = [
        helper.make_node("GreaterOrEqual", ["scores", "zero"], ["runs"]),
        helper.make_node("Where", ["runs", "zero", "hidden"], ["mask"]),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["products"]),
        helper.make_node("Cast", ["products"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "mask"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["weights"], axis=-1),
        helper.make_node("Cast", ["weights"], ["halves"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["halves", "v"], ["mixed"]),
    ]
    states = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT16, [HEADS, TOKENS, WIDTH])
        for name in ("q", "k", "v", "mixed")
    ]
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [TOKENS])
    numbers = [
        numpy_helper.from_array(np.float32(value), name) for name, value in (("zero", 0), ("hidden", hidden))
    ]
    graph = helper.make_graph(nodes, "attention", [*states[:3], scores], states[3:], numbers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
