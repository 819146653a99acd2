"""What every runtime reads: the lowest opset that holds the graph, and operators written as old parsers want them.

Opset 18 with IR version 8 loads in ONNX Runtime 1.16 and newer. It has no GELU: that becomes five nodes around Erf,
in the order in which runtimes recognise and fuse them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 18, 8
GELU_HALF = 0.5


def make_portable(model: onnx.ModelProto) -> None:
    """Rewrite a traced piece for old runtimes and TensorRT's parser, in place; no value changes."""
    shifts: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and len(node.input) == 2:
            node.input.append(_zero_shift(model.graph, node.input[1], shifts))
        nodes += _uint8_by_float(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    _halve_gelu_last(model.graph)
    model.ir_version = IR_VERSION


def cast_to_uint8(source: str, result: str) -> list[onnx.NodeProto]:
    """Nodes that cast whole numbers to uint8: TensorRT casts only floats to it."""
    wide = f"{result}_float"
    return [
        helper.make_node("Cast", [source], [wide], name=f"Cast_{wide}", to=TensorProto.FLOAT),
        helper.make_node("Cast", [wide], [result], name=f"Cast_{result}", to=TensorProto.UINT8),
    ]


def _halve_gelu_last(graph: onnx.GraphProto) -> None:
    """Write x · (½ · (1 + erf)) as (x · (1 + erf)) · ½, in place. Halving is exact, wherever it is done."""
    halves = {init.name for init in graph.initializer if _is_half(init)}
    sums = {node.output[0] for node in graph.node if node.op_type == "Add"}
    halved = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Mul" and node.input[0] in halves and node.input[1] in sums
    }
    for node in graph.node:
        if node.op_type == "Mul" and node.input[1] in halved:
            first = halved[node.input[1]]
            half, summed = first.input
            first.input[:] = [node.input[0], summed]
            node.input[:] = [first.output[0], half]


def _is_half(init: onnx.TensorProto) -> bool:
    return not init.dims and float(numpy_helper.to_array(init)) == GELU_HALF


def _uint8_by_float(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
    if node.op_type == "Cast" and to == TensorProto.UINT8:
        yield from cast_to_uint8(node.input[0], node.output[0])
    else:
        yield node


def _zero_shift(graph: onnx.GraphProto, scale: str, known: dict[str, str]) -> str:
    """An initializer of zeros: ONNX Runtime 1.18 aborts at a LayerNormalization without a bias."""
    if scale not in known:
        zeros = np.zeros_like(numpy_helper.to_array(next(i for i in graph.initializer if i.name == scale)))
        known[scale] = f"no_shift_{len(zeros)}"
        if all(init.name != known[scale] for init in graph.initializer):
            graph.initializer.append(numpy_helper.from_array(zeros, known[scale]))
    return known[scale]
