"""What an ONNX file needs and costs: parameters and MACs, counted from the graph alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path

import onnx
from onnx import TensorProto

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.macs import at_batch, count_macs

FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
QUANTIZED = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class GraphFacts:
    """Of one image; `macs` is None where a shape depends on the input's content."""

    parameters: int  # elements of float and 8-bit initializers, constants included
    macs: int | None
    file_bytes: int  # with the files of external weights


def graph_facts(path: Path) -> GraphFacts:
    """Read and count a file; TargetError if it is no ONNX graph."""
    try:
        model = onnx.load(path)
    except Exception as error:  # onnx and protobuf raise types of their own
        raise TargetError(f"{path} cannot be read as an ONNX graph: {error}") from error
    initializers = [init for graph in every_graph(model.graph) for init in graph.initializer]
    weights = [init for init in initializers if init.data_type in (*FLOATS, *QUANTIZED)]
    return GraphFacts(sum(prod(init.dims) for init in weights), _macs(model), _bytes(path))


def _macs(model: onnx.ModelProto) -> int | None:
    try:
        return count_macs(at_batch(model, 1))
    except (ValueError, RuntimeError, onnx.shape_inference.InferenceError):  # onnxsim raises RuntimeError
        return None


def _bytes(path: Path) -> int:
    """Of the file, and of those beside it that hold its weights."""
    bare = onnx.load(path, load_external_data=False)
    entries = [
        entry.value
        for graph in every_graph(bare.graph)
        for init in graph.initializer
        for entry in init.external_data
        if entry.key == "location"
    ]
    return sum(file.stat().st_size for file in {path, *(path.parent / name for name in entries)})
