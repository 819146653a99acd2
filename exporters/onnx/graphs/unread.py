"""Finds outputs that nothing reads and that can take over the memory of an earlier value. No torch."""

from __future__ import annotations

import onnx
from onnx import shape_inference

from morvit_deploy.exporters.onnx.graphs.graphs import every_graph, reads
from morvit_deploy.exporters.onnx.graphs.macs import inferable

Kind = tuple[int, tuple[int | str, ...]]  # element type and dimensions


def takes_over_unread(model: onnx.ModelProto) -> bool:
    """Whether an unread output has the type and shape of a value that is no longer needed when it is written.

    ONNX Runtime gives both the same memory. Before 1.19 it plans that memory as free from the earlier value's last
    reader on, so from a session's second run the unread output, such as the values of a TopK whose indices are read,
    overwrites whatever else lies there.
    """
    inferred = shape_inference.infer_shapes(inferable(model), data_prop=True)
    return any(_takes_over(graph) for graph in every_graph(inferred.graph))


def _takes_over(graph: onnx.GraphProto) -> bool:
    kinds, last = _kinds(graph), _last_readers(graph)
    earlier: dict[str, Kind] = {}
    for place, node in enumerate(graph.node):
        unread = {kinds[name] for name in node.output if name in kinds and name not in last}
        free = {kind for name, kind in earlier.items() if last.get(name, -1) < place}
        if unread & free:
            return True
        earlier |= {name: kinds[name] for name in node.output if name in kinds}
    return False


def _kinds(graph: onnx.GraphProto) -> dict[str, Kind]:
    """Type and shape of each value of one graph. The runtime shares no memory where a dimension is unknown."""
    found: dict[str, Kind] = {}
    for value in (*graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        dims = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
        if tensor.HasField("shape") and all(dims):
            found[value.name] = (tensor.elem_type, dims)
    return found


def _last_readers(graph: onnx.GraphProto) -> dict[str, int]:
    """Value to the place of the last node that reads it; outputs are needed after the last node."""
    last = {name: place for place, node in enumerate(graph.node) for name in reads(node)}
    return last | {value.name: len(graph.node) for value in graph.output}
