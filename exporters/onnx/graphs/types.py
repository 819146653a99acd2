"""Element types of a graph's values, and the nodes that compute in fp32."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import onnx
from onnx import TensorProto, shape_inference

MOVES = (  # values are handed on as they are
    "Reshape",
    "Transpose",
    "Slice",
    "Concat",
    "Split",
    "Gather",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "If",
)


def element_types(graph: onnx.GraphProto, outer: Mapping[str, int] | None = None) -> dict[str, int]:
    """Value to element type, in one graph after shape inference; `outer` are those it may read from outside."""
    values = (*graph.input, *graph.value_info, *graph.output)
    kinds = dict(outer or {}) | {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {init.name: init.data_type for init in graph.initializer}


def whole_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Operators that compute in fp32, with their number; what only moves values is left out. Most frequent first."""
    inferred = shape_inference.infer_shapes(model)
    kinds = element_types(inferred.graph)
    found = Counter(
        node.op_type
        for node in inferred.graph.node
        if node.op_type not in ("Cast", *MOVES)
        and any(kinds.get(name) == TensorProto.FLOAT for name in node.output)
    )
    return dict(found.most_common())
