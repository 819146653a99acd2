"""Puts a stem and its trunks together, in one self-dispatching graph or in files; and takes one bucket out again.

The self-dispatching graph chooses with one If after the other, each with a trunk in it or the results so far. They
are not nested: ONNX Runtime prepares the weights of the first level of branches only. The last If runs `full`, for
images that were sent there or, where the choice is a prediction, overflowed:

    stem ─► needed ─► If b0: trunk, else nothing ─► If b1: trunk, else keep ─► … ─► If full or overflow: full

Values inside a trunk are named `BUCKET/value`, in either form, so that a probe's name says where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from morvit_deploy.exporters.onnx.graphs.graphs import branches, drop_unread, every_graph, merge_equal, rename
from morvit_deploy.model.plan import FULL

INLINE_BYTES = 256  # smaller constants (shapes, axes) stay in the graph, where shape inference reads them
ORDER = ("logits", "bucket", "overflow", "depth")


def self_dispatching(
    stem: onnx.ModelProto, trunks: dict[str, onnx.ModelProto], unanswered: onnx.ModelProto
) -> onnx.ModelProto:
    """One graph of a stem and the trunks, cheapest first, `full` last.

    `unanswered` is the piece with the trunks' results where no bucket has been run yet.
    """
    model = onnx.ModelProto()
    model.CopyFrom(stem)
    graph = model.graph
    rename(graph, {"bucket": "needed"})
    kept = [value for value in graph.output if value.name in ORDER]
    bucket = next(value for value in graph.output if value.name == "needed")
    bucket.name = "bucket"
    del graph.output[:]
    *names, last = trunks
    graph.node.append(_node("ReduceMax", ["needed"], ["chosen"], keepdims=0))
    graph.node.append(_node("Sub", ["needed", "needed"], ["zeros"]))
    for number, name in enumerate(trunks):
        graph.initializer.append(helper.make_tensor(f"number_{name}", TensorProto.INT32, [], [number]))
        graph.node.append(_node("Equal", ["chosen", f"number_{name}"], [f"is_{name}"]))
    otherwise = _branch(graph, "none", unanswered)
    values = {_after_slash(value.name): value for value in otherwise.output}
    found = dict.fromkeys(values, "")
    for name in names:
        found = {result: f"until_{name}_{result}" for result in values}
        branch = _branch(graph, name, trunks[name], values)
        graph.node.append(_choice(name, f"is_{name}", branch, otherwise, list(found.values())))
        otherwise = _keep(f"keep_{name}", found, values)
    answers = {result: _steps(result) for result in values if result != "overflow"}
    runs_full = _overflowed(graph, found["overflow"], last) if "overflow" in found else f"is_{last}"
    branch = _branch(graph, FULL, trunks[last], answers)
    otherwise = _keep("keep", {result: found[result] for result in answers}, values)
    graph.node.append(_choice(FULL, runs_full, branch, otherwise, list(answers.values())))
    if "depth" in values:
        graph.node.append(_node("Cast", [_steps("depth")], ["depth"], to=TensorProto.UINT8))
        values["depth"].type.tensor_type.elem_type = TensorProto.UINT8
    graph.node.append(_node("Where", [runs_full, f"number_{last}", "chosen"], ["ran"]))
    graph.node.append(_node("Add", ["zeros", "ran"], ["bucket"]))
    for name, value in values.items():
        value.name = name
    every = values | {value.name: value for value in kept} | {"bucket": bucket}
    graph.output.extend(every[name] for name in ORDER if name in every)
    _settle(graph)
    return model


def separate(stem: onnx.ModelProto, trunks: dict[str, onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
    """Name to graph: `stem` and each trunk, with the values inside a trunk named after its bucket."""
    parts = {"stem": stem}
    for name, trunk in trunks.items():
        parts[name] = onnx.ModelProto()
        parts[name].CopyFrom(trunk)
        graph = parts[name].graph
        open_names = {value.name for value in (*graph.input, *graph.output)}
        values = _values(graph) | {init.name for init in graph.initializer if not _is_weight(init)}
        rename(graph, {value: f"{name}/{value}" for value in values - open_names})
        _name_nodes(graph, name)
    return parts


def integers_inside(model: onnx.ModelProto) -> None:
    """Give each branch initializers of its own for the int8 weights it widens, in place.

    TensorRT takes an integer constant only right before its DequantizeLinear, on the same side of an If. The file
    still holds each weight once: the branches' initializers name the same place in it.
    """
    held = {init.name: init for init in model.graph.initializer}
    for branch in every_graph(model.graph):
        if branch is model.graph:
            continue
        own: dict[str, str] = {}
        for node in branch.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in held:
                own |= {name: f"{branch.name}/{name}" for name in node.input if name in held}
                node.input[:] = [own.get(name, name) for name in node.input]
        for name, copied in own.items():
            branch.initializer.add().CopyFrom(held[name])
            branch.initializer[-1].name = copied
    drop_unread(model.graph)


def one_bucket(parts: Sequence[onnx.ModelProto], bucket: str, results: Iterable[str]) -> onnx.ModelProto:
    """The graph of one bucket, without any If, from the graphs of a bundle: the same nodes, the same weights.

    `parts` is the self-dispatching graph, or the stem's and the bucket's trunk. Probes lose the bucket's name.
    """
    model = onnx.ModelProto()
    model.CopyFrom(parts[0])
    graph = model.graph
    nodes = list(_inlined(graph, graph, bucket))
    outputs = {value.name: value for value in graph.output}
    for other in parts[1:]:
        known = {init.name for init in graph.initializer}
        graph.initializer.extend(init for init in other.graph.initializer if init.name not in known)
        nodes += _inlined(other.graph, graph, bucket)
        outputs |= {value.name: value for value in other.graph.output}
    del graph.node[:], graph.output[:]
    graph.node.extend(nodes)
    graph.output.extend(outputs[name] for name in results if name in outputs)
    drop_unread(graph)
    inside = {value: _after_slash(value) for value in _values(graph) if value.startswith(f"{bucket}/")}
    rename(
        graph, {value: probe for value, probe in inside.items() if "." in probe}
    )  # others have numbers for names
    return model


def _inlined(graph: onnx.GraphProto, main: onnx.GraphProto, bucket: str) -> Iterable[onnx.NodeProto]:
    """The nodes of a graph; in place of an If those of the branch that leads to `bucket`."""
    if graph is not main:
        known = {init.name for init in main.initializer}
        main.initializer.extend(init for init in graph.initializer if init.name not in known)
    for node in graph.node:
        if node.op_type != "If":
            yield node
            continue
        leads = [b for b in branches(node) if any(inner.name == bucket for inner in every_graph(b))]
        branch = leads[0] if leads else next(a.g for a in node.attribute if a.name == "else_branch")
        yield from _inlined(branch, main, bucket)
        for inner, outer in zip(branch.output, node.output, strict=True):
            yield _node("Identity", [inner.name], [outer])


def _overflowed(graph: onnx.GraphProto, found: str, last: str) -> str:
    """Append the output `overflow`; the name of the condition that an image overflowed or needs the last bucket."""
    graph.node.extend(
        [
            _node("Identity", [found], ["overflow"]),
            _node("Cast", [found], ["overflowed"], to=TensorProto.INT32),
            _node("ReduceMax", ["overflowed"], ["any_overflowed"], keepdims=0),
            _node("Cast", ["any_overflowed"], ["any_overflow"], to=TensorProto.BOOL),
            _node("Or", ["any_overflow", f"is_{last}"], ["runs_full"]),
        ]
    )
    return "runs_full"


def _keep(name: str, found: dict[str, str], values: dict[str, onnx.ValueInfoProto]) -> onnx.GraphProto:
    """A branch that answers what has been found so far."""
    nodes = [_node("Identity", [value], [f"{name}/{result}"]) for result, value in found.items()]
    return helper.make_graph(nodes, name, [], _renamed([values[result] for result in found], f"{name}/"))


def _steps(name: str) -> str:
    """A result's name before its last cast: depths are uint8 only at the graph's edge."""
    return "depth_steps" if name == "depth" else name


def _choice(
    name: str, condition: str, then: onnx.GraphProto, otherwise: onnx.GraphProto, results: list[str]
) -> onnx.NodeProto:
    return _node("If", [condition], results, name=f"If_{name}", then_branch=then, else_branch=otherwise)


def _branch(
    main: onnx.GraphProto, name: str, piece: onnx.ModelProto, results: Iterable[str] | None = None
) -> onnx.GraphProto:
    """A piece as a branch of an If: its weights go to the main graph, its values are named after the bucket."""
    graph = onnx.GraphProto()
    graph.CopyFrom(piece.graph)
    if results is not None:
        by_name = {value.name: value for value in graph.output}
        del graph.output[:]
        graph.output.extend(by_name[result] for result in results)
        drop_unread(graph)
    for init in graph.initializer:
        if any(
            value.name == init.name for value in graph.output
        ):  # a branch answers with what its nodes compute
            graph.node.append(_node("Identity", [f"constant_{init.name}"], [init.name]))
            init.name = f"constant_{init.name}"
    rename(graph, {v: f"{name}/{v}" for v in _values(graph) | {i.name for i in graph.initializer}})
    _name_nodes(graph, name)
    main.initializer.extend(init for init in graph.initializer if not _is_small(init))
    small = [init for init in graph.initializer if _is_small(init)]
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(small)
    graph.name = name
    return graph


def _settle(graph: onnx.GraphProto) -> None:
    """Equal weights of the pieces become one, with the checkpoint's own name."""
    merge_equal(graph)
    taken = {init.name for init in graph.initializer}
    names = {}
    for init in graph.initializer:
        plain = _after_slash(init.name)
        if _is_weight(init) and plain not in taken:
            names[init.name] = plain
            taken.add(plain)
    rename(graph, names)


def _name_nodes(graph: onnx.GraphProto, bucket: str) -> None:
    for node in graph.node:
        node.name = f"{bucket}/{node.name}"


def _values(graph: onnx.GraphProto) -> set[str]:
    return {name for inner in every_graph(graph) for node in inner.node for name in node.output}


def _is_small(init: onnx.TensorProto) -> bool:
    return not _is_weight(init) and numpy_helper.to_array(init).nbytes < INLINE_BYTES


def _is_weight(init: onnx.TensorProto) -> bool:
    """A weight is named after its module (cycle.0.fc1.weight); what the exporter folded has no dot in its name."""
    return "." in init.name


def _renamed(values: Iterable[onnx.ValueInfoProto], prefix: str) -> list[onnx.ValueInfoProto]:
    copies = []
    for value in values:
        copy = onnx.ValueInfoProto()
        copy.CopyFrom(value)
        copy.name = prefix + _after_slash(value.name)
        copies.append(copy)
    return copies


def _after_slash(name: str) -> str:
    return name.rpartition("/")[2]


def _node(
    op_type: str, inputs: list[str], outputs: list[str], name: str | None = None, **attributes: Any
) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs, outputs, name=name or f"{op_type}_{outputs[0]}", **attributes)
