"""Puts a stem and its trunks together: one self-dispatching graph, or separate files; and takes one bucket out again.

In the self-dispatching graph the chosen bucket is a chain of Ifs, one for each bucket. Where the choice is a
prediction, a last If runs `full` when the image overflowed, or needs `full` from the start:

    stem ─► needed ─► If b0 else If b1 else … nothing ─► If overflow or none: full, else keep ─► logits

Values inside a trunk are named `BUCKET/value`, in either form, so that a probe's name says where it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import onnx
from onnx import TensorProto, helper, numpy_helper

from morvit_deploy.exporters.onnx_graphs import branches, drop_unread, every_graph, merge_equal, rename
from morvit_deploy.plan import FULL

INLINE_BYTES = 256  # smaller constants (shapes, axes) stay in the graph, where shape inference reads them
ORDER = ("logits", "bucket", "overflow", "depth")


def self_dispatching(
    stem: onnx.ModelProto, trunks: dict[str, onnx.ModelProto], unanswered: onnx.ModelProto | None
) -> onnx.ModelProto:
    """One graph of a stem and the trunks, cheapest first, `full` last.

    `unanswered` is the piece that stands where no predicted bucket is run; without it the choice is exact, and
    no image is ever run again.
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
    for number, name in enumerate([*names, last]):
        graph.initializer.append(helper.make_tensor(f"number_{name}", TensorProto.INT32, [], [number]))
        graph.node.append(_node("Equal", ["chosen", f"number_{name}"], [f"is_{name}"]))
    rest = _branch(graph, FULL, trunks[last]) if unanswered is None else _branch(graph, "none", unanswered)
    results = [_after_slash(value.name) for value in rest.output]
    for name in reversed(names):
        outputs = _renamed(rest.output, f"or_{name}/")
        branch = _branch(graph, name, trunks[name], results)
        choice = _choice(name, branch, rest, [value.name for value in outputs])
        rest = helper.make_graph([choice], f"or_{name}", [], outputs)
    (top,) = rest.node
    if unanswered is None:
        top.output[:] = results
        graph.node.append(top)
        graph.node.append(_node("Add", ["zeros", "chosen"], ["bucket"]))
        answers = {_after_slash(value.name): value for value in rest.output}
    else:
        top.output[:] = [f"found.{name}" for name in results]
        graph.node.append(top)
        answers = _or_full(graph, trunks[last], rest.output, results, last)
    for name, value in answers.items():
        value.name = name
    every = answers | {value.name: value for value in kept} | {"bucket": bucket}
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


def _or_full(
    graph: onnx.GraphProto,
    trunk: onnx.ModelProto,
    found: Iterable[onnx.ValueInfoProto],
    results: list[str],
    last: str,
) -> dict[str, onnx.ValueInfoProto]:
    """Append the If that runs `full` for an image that overflowed, or was sent there; returns the graph's outputs."""
    answers = [name for name in results if name != "overflow"]
    values = {_after_slash(value.name): value for value in found}
    graph.node.extend(
        [
            _node("Cast", ["found.overflow"], ["overflowed"], to=TensorProto.INT32),
            _node("ReduceMax", ["overflowed"], ["any_overflowed"], keepdims=0),
            _node("Cast", ["any_overflowed"], ["any_overflow"], to=TensorProto.BOOL),
            _node("Or", ["any_overflow", f"is_{last}"], ["runs_full"]),
        ]
    )
    names = [_steps(name) for name in answers]
    keep = helper.make_graph(
        [_node("Identity", [f"found.{name}"], [f"keep/{name}"]) for name in answers],
        "keep",
        [],
        _renamed([values[name] for name in answers], "keep/"),
    )
    choice = _choice(FULL, _branch(graph, FULL, trunk, answers), keep, answers)
    choice.input[:], choice.output[:] = ["runs_full"], names
    graph.node.append(choice)
    if "depth" in values:
        graph.node.append(_node("Cast", [_steps("depth")], ["depth"], to=TensorProto.UINT8))
        values["depth"].type.tensor_type.elem_type = TensorProto.UINT8
    graph.node.append(_node("Where", ["runs_full", f"number_{last}", "chosen"], ["ran"]))
    graph.node.append(_node("Add", ["zeros", "ran"], ["bucket"]))
    graph.node.append(_node("Identity", ["found.overflow"], ["overflow"]))
    return values


def _steps(name: str) -> str:
    """A result's name before its last cast: depths are uint8 only at the graph's edge."""
    return "depth_steps" if name == "depth" else name


def _choice(
    name: str, then: onnx.GraphProto, otherwise: onnx.GraphProto, results: list[str]
) -> onnx.NodeProto:
    return _node("If", [f"is_{name}"], results, name=f"If_{name}", then_branch=then, else_branch=otherwise)


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
