"""The nodes that ONNX Runtime runs: the step, the kind and the weights of each node of an optimized graph.

Fusing renames nodes, but a fused node still computes values of the written graph. A node whose values are all new
belongs to the first step that reads them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from morvit_deploy.exporters.onnx.graphs.graphs import MOVES
from morvit_deploy.measuring.profiling.kinds import ATTENTION, MOVEMENT, PRODUCTS, REST
from morvit_deploy.measuring.profiling.steps import Steps, weights_of

if TYPE_CHECKING:
    import onnx  # named only

# in the names of operators, with or without what was fused into them
_MULTIPLIES = ("MatMul", "Gemm", "Conv")
_MOVES = {
    *MOVES, "Cast", "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "Expand", "Tile", "Pad", "Flatten",
    "GatherElements", "GatherND", "Scatter", "ScatterElements", "ScatterND", "ReorderInput", "ReorderOutput",
}  # fmt: skip  # a list of names


@dataclass(frozen=True)
class Node:
    """A node that is run: the number of its step, its kind, and the bytes of weights that it reads in a run."""

    step: int | None  # None: no value says which
    kind: str
    weight_bytes: int = 0
    integers: bool = False  # multiplies int8 weights


def find_nodes(optimized: onnx.ModelProto, steps: Steps) -> dict[str, Node]:
    """Name to node, of the graph that ONNX Runtime made of the one that `steps` describes."""
    graph = optimized.graph
    makers = {name: node for node in graph.node for name in node.output}
    held = {init.name: init for init in graph.initializer}
    return {
        node.name: _node(node, step, makers, held)
        for node, step in zip(graph.node, _steps_of(graph, steps.of_value), strict=True)
    }


def _steps_of(graph: onnx.GraphProto, of_value: Mapping[str, int]) -> list[int | None]:
    """The step of each node, in order: that of a value it computes, else the first that reads one of its values."""
    read: dict[str, int] = {}  # value to the first step that reads it
    found: list[int | None] = []
    for node in reversed(graph.node):
        own = [of_value[name] for name in node.output if name in of_value]
        later = [read[name] for name in node.output if name in read]
        step = min(own or later, default=None)
        found.append(step)
        if step is not None:
            read |= {name: min(step, read.get(name, step)) for name in node.input}
    return found[::-1]


def _node(
    node: onnx.NodeProto,
    step: int | None,
    makers: Mapping[str, onnx.NodeProto],
    held: Mapping[str, onnx.TensorProto],
) -> Node:
    if any(word in node.op_type for word in _MULTIPLIES):
        weights = [held[name] for name in weights_of(node, makers, held) if len(held[name].dims) > 1]
        if not weights:
            return Node(step, ATTENTION)
        integers = "NBits" not in node.op_type and any(_is_int8(weight) for weight in weights)
        return Node(step, PRODUCTS, sum(map(_bytes, weights)), integers)
    if "Attention" in node.op_type or "Softmax" in node.op_type:
        return Node(step, ATTENTION)
    return Node(step, MOVEMENT if node.op_type in _MOVES else REST)


def _is_int8(weight: onnx.TensorProto) -> bool:
    return weight.data_type in (weight.INT8, weight.UINT8)


def _bytes(weight: onnx.TensorProto) -> int:
    import onnx

    itemsize: int = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
    return int(math.prod(weight.dims)) * itemsize
