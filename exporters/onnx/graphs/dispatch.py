"""Joins a stem and its trunks into one graph that chooses the bucket itself.

The Ifs follow one another; each runs a trunk or returns the results so far. They are not nested, because ONNX Runtime
prepacks weights only in the first level of branches. The last If runs `full`, for images that chose it and, where the
choice is a prediction, for images that overflowed:

    stem ─► needed ─► If b0: trunk, else nothing ─► If b1: trunk, else keep ─► … ─► If full or overflow: full
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx
from onnx import TensorProto, helper

from morvit_deploy.exporters.onnx.graphs.branches import after_slash, as_branch, merge_pieces
from morvit_deploy.exporters.onnx.graphs.graphs import copy_of, rename
from morvit_deploy.exporters.onnx.graphs.portable import cast_to_uint8
from morvit_deploy.model.plan import FULL

ORDER = ("logits", "features", "tokens", "bucket", "overflow", "depth")  # of a bundle's outputs

Values = dict[str, onnx.ValueInfoProto]  # result to its type and shape


def self_dispatching(
    stem: onnx.ModelProto, trunks: Mapping[str, onnx.ModelProto], unanswered: onnx.ModelProto
) -> onnx.ModelProto:
    """One graph of a stem and the trunks, cheapest first, `full` last.

    `unanswered` is the piece with the trunks' results where no bucket has been run yet.
    """
    model = copy_of(stem)
    graph = model.graph
    *predicted, last = trunks
    outputs = _take_outputs(graph)
    together = not _is_single(outputs["bucket"])
    _number_buckets(graph, trunks)
    nothing = as_branch(graph, "none", unanswered)
    values = {after_slash(value.name): value for value in nothing.output}
    found = dict.fromkeys(values, "")
    otherwise = nothing
    for name in predicted:
        found = {result: f"until_{name}_{result}" for result in values}
        if "overflow" in found and name == predicted[-1]:
            found["overflow"] = "overflow"  # `full` cannot overflow
        branch = as_branch(graph, name, trunks[name], values)
        graph.node.append(_choice(name, f"is_{name}", branch, otherwise, found.values()))
        otherwise = _keep(f"keep_{name}", found, values)
    runs_full = _overflowed(graph, last, together) if "overflow" in found else f"is_{last}"
    _run_full(graph, trunks[last], runs_full, found, values)
    _number_images(graph, runs_full, last, together, "overflow" in found)
    for name, value in values.items():
        value.name = name
    outputs |= values
    graph.output.extend(outputs[name] for name in ORDER if name in outputs)
    merge_pieces(graph)
    return model


def _is_single(value: onnx.ValueInfoProto) -> bool:
    """Whether the graph takes one image, from an output of one number for each."""
    return bool(value.type.tensor_type.shape.dim[0].dim_value == 1)


def _take_outputs(graph: onnx.GraphProto) -> Values:
    """Remove a stem's outputs and rename its `bucket` to `needed`; returns the outputs that the whole graph keeps."""
    outputs = {value.name: value for value in graph.output if value.name in ORDER}
    rename(graph, {"bucket": "needed"})
    outputs["bucket"].name = "bucket"
    del graph.output[:]
    return outputs


def _number_buckets(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Append the bucket `chosen` for the whole batch, and the condition `is_BUCKET` for each bucket."""
    graph.node.append(_node("ReduceMax", ["needed"], ["chosen"], keepdims=0))
    for number, name in enumerate(names):
        graph.initializer.append(helper.make_tensor(f"number_{name}", TensorProto.INT32, [], [number]))
        graph.node.append(_node("Equal", ["chosen", f"number_{name}"], [f"is_{name}"]))


def _number_images(
    graph: onnx.GraphProto, runs_full: str, last: str, together: bool, overflows: bool
) -> None:
    """Append the output `bucket`: the one that ran, for each image."""
    ran = "needed"
    if together:
        ran = "together"
        graph.node.append(_node("Max", ["needed", "chosen"], [ran]))
    if overflows:
        graph.node.append(_node("Where", [runs_full, f"number_{last}", ran], ["bucket"]))
    else:
        graph.node.append(_node("Identity", [ran], ["bucket"]))


def _overflowed(graph: onnx.GraphProto, last: str, together: bool) -> str:
    """Append the condition that `full` has to run, a scalar; returns its name."""
    if together:
        any_overflow = [
            _node("Cast", ["overflow"], ["overflowed"], to=TensorProto.INT32),
            _node("ReduceMax", ["overflowed"], ["any_overflowed"], keepdims=0),
            _node("Cast", ["any_overflowed"], ["any_overflow"], to=TensorProto.BOOL),
        ]
    else:
        any_overflow = [_node("Squeeze", ["overflow"], ["any_overflow"])]
    graph.node.extend([*any_overflow, _node("Or", ["any_overflow", f"is_{last}"], ["runs_full"])])
    return "runs_full"


def _run_full(
    graph: onnx.GraphProto, trunk: onnx.ModelProto, condition: str, found: Mapping[str, str], values: Values
) -> None:
    """Append the last If, which runs `full` or returns the results so far; `depth` becomes uint8 after it."""
    results = {name: "depth_steps" if name == "depth" else name for name in values if name != "overflow"}
    branch = as_branch(graph, FULL, trunk, results)
    otherwise = _keep("keep", {name: found[name] for name in results}, values)
    graph.node.append(_choice(FULL, condition, branch, otherwise, results.values()))
    if "depth" in values:
        graph.node.extend(cast_to_uint8(results["depth"], "depth"))
        values["depth"].type.tensor_type.elem_type = TensorProto.UINT8


def _keep(name: str, found: Mapping[str, str], values: Values) -> onnx.GraphProto:
    """A branch that returns what has been found so far."""
    nodes = [_node("Identity", [value], [f"{name}/{result}"]) for result, value in found.items()]
    graph = helper.make_graph(nodes, name, [], [values[result] for result in found])
    for value, result in zip(graph.output, found, strict=True):
        value.name = f"{name}/{result}"
    return graph


def _choice(
    name: str, condition: str, then: onnx.GraphProto, otherwise: onnx.GraphProto, results: Iterable[str]
) -> onnx.NodeProto:
    return helper.make_node(
        "If", [condition], list(results), name=f"If_{name}", then_branch=then, else_branch=otherwise
    )


def _node(op_type: str, inputs: list[str], outputs: list[str], **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, name=f"{op_type}_{outputs[0]}", **attributes)
