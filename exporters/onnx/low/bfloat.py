"""Rewrites a bf16 graph for a runtime without bf16 kernels: the nodes compute in fp32 and round each bf16 value.

ONNX Runtime's CPU provider can cast to bf16 but not multiply in it. Like tensor cores, this sums products of bf16
numbers in fp32 and rounds once; only the order of the sums differs. No torch.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, shape_inference

from morvit_deploy.exporters.onnx.graphs.graphs import MOVES, branches, element_types

BF16, FP32 = TensorProto.BFLOAT16, TensorProto.FLOAT
NARROW, UNROUNDED = "_bf16", "_unrounded"  # suffixes of a value's name


def rounded_in_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that returns what the bf16 graph does; weights must be in the model, not in a file beside it."""
    inferred = shape_inference.infer_shapes(model)
    _widen(inferred.graph, {})
    del inferred.graph.value_info[:]
    return inferred


def _widen(graph: onnx.GraphProto, outer: dict[str, int]) -> None:
    kinds = element_types(graph, outer)
    for init in graph.initializer:
        if init.data_type == BF16:
            wide = numpy_helper.to_array(init).astype(np.float32)  # exact
            init.CopyFrom(numpy_helper.from_array(wide, init.name))
    nodes = []
    for node in graph.node:
        for branch in branches(node):
            _widen(branch, kinds)
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == BF16:
                attribute.i = FP32
        rounding = [] if node.op_type in MOVES else [n for n in node.output if kinds.get(n) == BF16]
        node.output[:] = [name + UNROUNDED if name in rounding else name for name in node.output]
        nodes.append(node)
        for name in rounding:
            nodes.append(helper.make_node("Cast", [name + UNROUNDED], [name + NARROW], to=BF16))
            nodes.append(helper.make_node("Cast", [name + NARROW], [name], to=FP32))
    del graph.node[:]
    graph.node.extend(nodes)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type == BF16:
            value.type.tensor_type.elem_type = FP32
