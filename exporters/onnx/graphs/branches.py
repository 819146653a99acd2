"""Names and weights of traced pieces that become branches of one graph, or files of their own.

Values inside a trunk are named `BUCKET/value` in both cases. Weights are named after their modules and shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import compose, helper, numpy_helper

from morvit_deploy.exporters.onnx.graphs.graphs import (
    copy_of,
    drop_unread,
    every_graph,
    merge_equal,
    rename,
)

INLINE_BYTES = 256  # smaller constants (shapes, axes) stay in the graph, where shape inference reads them


def as_branch(
    main: onnx.GraphProto, name: str, piece: onnx.ModelProto, results: Iterable[str] | None = None
) -> onnx.GraphProto:
    """Turn a piece into a branch of an If; its weights move to `main`, its values get the bucket's prefix."""
    graph = copy_of(piece).graph
    if results is not None:
        by_name = {value.name: value for value in graph.output}
        del graph.output[:]
        graph.output.extend(by_name[result] for result in results)
        drop_unread(graph)
    _compute_outputs(graph)
    compose.add_prefix_graph(graph, f"{name}/", rename_inputs=False, inplace=True)
    small = [init for init in graph.initializer if _is_small(init)]
    main.initializer.extend(init for init in graph.initializer if not _is_small(init))
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(small)
    graph.name = name
    return graph


def separate(stem: onnx.ModelProto, trunks: Mapping[str, onnx.ModelProto]) -> dict[str, onnx.ModelProto]:
    """Name to graph: `stem` and each trunk, with the values inside a trunk named after its bucket."""
    parts = {"stem": stem}
    for name, trunk in trunks.items():
        parts[name] = copy_of(trunk)
        graph = parts[name].graph
        compose.add_prefix_graph(
            graph,
            f"{name}/",
            rename_inputs=False,
            rename_outputs=False,
            rename_initializers=False,
            inplace=True,
        )
        outputs = {value.name for value in graph.output}
        constants = {init.name for init in graph.initializer if not _is_weight(init)} - outputs
        rename(graph, {constant: f"{name}/{constant}" for constant in constants})
    return parts


def merge_pieces(graph: onnx.GraphProto) -> None:
    """Equal weights of the pieces become one, with the checkpoint's own name, in place."""
    merge_equal(graph)
    taken = {init.name for init in graph.initializer}
    names = {}
    for init in graph.initializer:
        plain = after_slash(init.name)
        if _is_weight(init) and plain not in taken:
            names[init.name] = plain
            taken.add(plain)
    rename(graph, names)


def integers_inside(model: onnx.ModelProto) -> None:
    """Give each branch initializers of its own for the int8 weights it widens, in place.

    TensorRT accepts an integer constant only directly before its DequantizeLinear, in the same branch. The file still
    holds each weight once: the branches' initializers refer to the same offset.
    """
    held = {init.name: init for init in model.graph.initializer}
    _, *branches = every_graph(model.graph)
    for branch in branches:
        own: dict[str, str] = {}
        for node in branch.node:
            if node.op_type == "DequantizeLinear" and node.input[0] in held:
                own |= {name: f"{branch.name}/{name}" for name in node.input if name in held}
                node.input[:] = [own.get(name, name) for name in node.input]
        for name, copied in own.items():
            branch.initializer.add().CopyFrom(held[name])
            branch.initializer[-1].name = copied
    drop_unread(model.graph)


def after_slash(name: str) -> str:
    """A name without its bucket."""
    return name.rpartition("/")[2]


def _compute_outputs(graph: onnx.GraphProto) -> None:
    """Put an Identity after each output that is an initializer: a branch returns only what its nodes compute."""
    outputs = {value.name for value in graph.output}
    for init in graph.initializer:
        if init.name in outputs:
            constant = f"constant_{init.name}"
            node = helper.make_node("Identity", [constant], [init.name], name=f"Identity_{init.name}")
            graph.node.append(node)
            init.name = constant


def _is_small(init: onnx.TensorProto) -> bool:
    return not _is_weight(init) and numpy_helper.to_array(init).nbytes < INLINE_BYTES


def _is_weight(init: onnx.TensorProto) -> bool:
    """A weight is named after its module (cycle.0.fc1.weight); what the exporter folded has no dot in its name."""
    return "." in init.name
