"""Small operations on ONNX graphs and the branches inside them. No torch."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping

import onnx
from onnx import TensorProto, numpy_helper, shape_inference

MOVES = (  # operators that do not change values
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
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that can be edited."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def copy_without(model: onnx.ModelProto, initializers: Container[str]) -> onnx.ModelProto:
    """A copy that can be edited, without some initializers of the graph, which are not copied first."""
    graph = model.graph
    copy = onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions
    )
    copy.graph.name = graph.name
    copy.graph.input.extend(graph.input)
    copy.graph.output.extend(graph.output)
    copy.graph.value_info.extend(graph.value_info)
    copy.graph.node.extend(graph.node)
    copy.graph.initializer.extend(init for init in graph.initializer if init.name not in initializers)
    return copy


def branches(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The branches of an If; none for another node."""
    return [attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH]


def every_graph(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and all branches inside it."""
    yield graph
    for node in graph.node:
        for branch in branches(node):
            yield from every_graph(branch)


def computed_values(graph: onnx.GraphProto) -> set[str]:
    """Names of the values that nodes compute, in the graph and in its branches."""
    return {name for inner in every_graph(graph) for node in inner.node for name in node.output}


def reads(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, including those that its branches read from outside."""
    names = set(node.input)
    for branch in branches(node):
        inside = {name for inner in branch.node for name in inner.output}
        inside |= {init.name for init in branch.initializer}
        names |= {name for inner in branch.node for name in reads(inner)} - inside
        names |= {value.name for value in branch.output} - inside
    return names


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output depends on, in place."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(reads(node))
            kept.append(node)
    initializers = [init for init in graph.initializer if init.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def rename(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    """Rename values and initializers in a graph and in its branches, in place."""
    for inner in every_graph(graph):
        for value in (*inner.input, *inner.output, *inner.initializer):
            value.name = names.get(value.name, value.name)
        for node in inner.node:
            node.input[:] = [names.get(name, name) for name in node.input]
            node.output[:] = [names.get(name, name) for name in node.output]


def merge_equal(graph: onnx.GraphProto) -> None:
    """Keep one initializer for each unique content, in place; a weight's own name is preferred to a bucket's copy."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    names, kept = {}, []
    for init in sorted(graph.initializer, key=lambda init: ("." not in init.name, "/" in init.name)):
        content = hashlib.sha256(numpy_helper.to_array(init).tobytes()).digest()
        names[init.name] = first.setdefault((init.data_type, tuple(init.dims), content), init.name)
        if names[init.name] == init.name:
            kept.append(init)
    del graph.initializer[:]
    graph.initializer.extend(kept)
    rename(graph, {old: new for old, new in names.items() if old != new})


def element_types(graph: onnx.GraphProto, outer: Mapping[str, int] | None = None) -> dict[str, int]:
    """Value to element type, in one graph after shape inference; `outer` are those it may read from outside."""
    values = (*graph.input, *graph.value_info, *graph.output)
    kinds = dict(outer or {}) | {value.name: value.type.tensor_type.elem_type for value in values}
    return kinds | {init.name: init.data_type for init in graph.initializer}


def whole_operators(model: onnx.ModelProto) -> dict[str, int]:
    """Number of nodes that compute in fp32 by operator, most frequent first; MOVES are left out."""
    graph = shape_inference.infer_shapes(model).graph
    kinds = element_types(graph)
    found = Counter(
        node.op_type
        for node in graph.node
        if node.op_type not in ("Cast", *MOVES)
        and any(kinds.get(name) == TensorProto.FLOAT for name in node.output)
    )
    return dict(found.most_common())
