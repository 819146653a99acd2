"""Checks nodes, shapes and constants of a written graph against its plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, shape_inference

from morvit_deploy.agent.core.releases import is_older
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import StructureError
from morvit_deploy.exporters.onnx.form import OnnxForm
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.macs import Shapes, infer_shapes
from morvit_deploy.exporters.onnx.releases import held_by, lowest_release
from morvit_deploy.graph.unroll import RESULTS, StaticMoRViT
from morvit_deploy.model.macs import dense_macs, schedule_macs

SCATTERS = ("Scatter", "ScatterElements", "ScatterND")
FORBIDDEN = ("NonZero", "Loop", "Scan", *SCATTERS, "Unique", "Compress")


def operator_violations(nodes: Iterable[onnx.NodeProto], manifest: Manifest) -> list[str]:
    """There is no operator whose work depends on data, and exactly the Ifs that the dispatch needs."""
    allowed = SCATTERS if manifest.form == "gather_scatter" else ()  # which the baseline is named after
    choices = [node.name for node in nodes if node.op_type == "If"]
    # one for each bucket but `full`, and one for who needs `full` after all
    expected = len(manifest.plan.buckets) if manifest.dispatch == "graph" else 0
    wrong = [] if len(choices) == expected else [f"the graph has the Ifs {choices}, expected {expected}"]
    return wrong + [
        f"node {node.name!r} is a {node.op_type}: its work depends on data"
        for node in nodes
        if node.op_type in FORBIDDEN and node.op_type not in allowed
    ]


def runtime_violations(models: Iterable[onnx.ModelProto], manifest: Manifest) -> list[str]:
    """Every ONNX Runtime from the manifest's lowest on runs the graphs."""
    form = manifest.target_form
    if not isinstance(form, OnnxForm) or form.lowest_runtime is None:
        return []
    try:
        lowest = lowest_release(map(held_by, models))
    except StructureError as error:
        return [str(error)]
    if not is_older(form.lowest_runtime, lowest):
        return []
    return [
        f"the manifest says that ONNX Runtime {form.lowest_runtime} runs the graphs, they require {lowest}"
    ]


def limit_violations(model: onnx.ModelProto, folder: Path, limits: Mapping[str, int]) -> list[str]:
    """No TopK, in a branch or outside, ranks more values than the target's limit `topk`."""
    most = limits.get("topk")
    if most is None:
        return []
    violations, held = [], dict[str, onnx.TensorProto]()
    for graph in every_graph(model.graph):  # outer graphs first: a branch reads their constants
        held |= {initializer.name: initializer for initializer in graph.initializer}
        held |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
        for node in (node for node in graph.node if node.op_type == "TopK"):
            k = held.get(node.input[1])
            ranked = None if k is None else int(numpy_helper.to_array(k, str(folder)).item())
            if ranked is None or ranked > most:
                found = "a number known only at run time" if ranked is None else f"{ranked:,}"
                violations.append(f"node {node.name!r} ranks {found}, and the target's TopK at most {most:,}")
    return violations


def port_violations(model: onnx.ModelProto, dynamic: bool) -> list[str]:
    """The batch, axis 0 of inputs and outputs, is dynamic if promised; no other dimension ever is."""
    violations = []
    for value in (*model.graph.input, *model.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value") == (dynamic and axis == 0):
                found = dim.dim_value if dim.HasField("dim_value") else f"dynamic ({dim.dim_param!r})"
                violations.append(f"dimension {axis} of {value.name!r} is {found}")
    return violations


def shapes_of(model: onnx.ModelProto) -> tuple[Shapes, list[str]]:
    """The shape of every value at one batch size, of which every dimension is a number, and what is not so."""
    try:
        shapes = infer_shapes(model)
    except shape_inference.InferenceError as error:
        return {}, [f"shapes do not fit: {str(error).splitlines()[0]}"]
    return shapes, [
        f"value {name!r} has dynamic dimensions: {list(shape)}"
        for name, shape in shapes.items()
        if not all(isinstance(dim, int) for dim in shape)
    ]


def mac_violations(found: int, graph: StaticMoRViT, manifest: Manifest) -> list[str]:
    """MACs of one image equal those counted from the configuration alone."""
    options = graph.options
    expected = (
        dense_macs(graph.config)
        if manifest.form == "masked"
        else schedule_macs(
            graph.config,
            graph.capacity,
            options.cls_only,
            options.frozen_keys,
            graph.routed,
            options.unformed_keys,
            output=options.output,
            scatters=manifest.form == "gather_scatter",
        )
    )
    if found == expected:
        return []
    return [f"the graph does {found:,} MACs an image, the plan says {expected:,}"]


def probe_violations(model: onnx.ModelProto, manifest: Manifest, bucket: str, named: Set[str]) -> list[str]:
    """The manifest lists every value inside that `verify` can compare; `named` are those of the static module."""
    inside = {name for node in model.graph.node for name in node.output}
    differing = sorted(((named - set(RESULTS)) & inside) ^ set(manifest.probes_of(bucket)))
    return [f"the manifest's probes and the graph's values differ in {differing}"] if differing else []


def compared_numbers(model: onnx.ModelProto) -> set[float]:
    """The numbers that router logits are compared with."""
    constants = _constants(model.graph, "GreaterOrEqual")
    return {float(array) for array in constants if array.dtype == np.float32 and array.size == 1}


def dispatch_table(model: onnx.ModelProto, folder: Path) -> list[NDArray[Any]]:
    """The integer constants that the stem compares with, among them the plan's table."""
    return [array for array in _constants(model.graph, "Greater", folder) if array.dtype == np.int64]


def _constants(graph: onnx.GraphProto, op_type: str, folder: Path | None = None) -> list[NDArray[Any]]:
    """Constants that nodes of one operator read, outside of branches; large ones are read from the weights file."""
    held = {init.name: init for init in graph.initializer}
    names = {name for node in graph.node if node.op_type == op_type for name in node.input if name in held}
    return [numpy_helper.to_array(held[name], str(folder or "")) for name in sorted(names)]
