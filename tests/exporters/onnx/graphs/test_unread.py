"""Outputs that nothing reads and that can have the memory of an earlier value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from morvit_deploy.exporters.onnx.graphs.unread import takes_over_unread
from morvit_deploy.exporters.onnx.releases import held_by

TOKENS = 8
Node = tuple[str, Sequence[str], Sequence[str]]
DEAD: list[Node] = [("Neg", ["x"], ["early"]), ("Exp", ["early"], ["scores"])]
RANK: Node = ("TopK", ["scores", "k"], ["values", "order"])


def model_of(nodes: Sequence[Node], kind: int = TensorProto.FLOAT, k: int = TOKENS) -> onnx.ModelProto:
    """Nodes (operator, inputs, outputs) on x (8,), which return the order of a TopK."""
    graph = helper.make_graph(
        [helper.make_node(*node) for node in nodes],
        "g",
        [helper.make_tensor_value_info("x", kind, [TOKENS])],
        [helper.make_tensor_value_info("order", TensorProto.INT64, [k])],
        [numpy_helper.from_array(np.array([k]), "k")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def in_a_branch(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same nodes inside an If, which reads x from outside."""
    outside = onnx.ModelProto()
    outside.CopyFrom(model)
    branch = onnx.GraphProto()
    branch.CopyFrom(model.graph)
    del branch.input[:]
    del outside.graph.node[:]
    yes = numpy_helper.from_array(np.array(True), "yes")
    outside.graph.initializer.append(yes)
    outside.graph.node.append(
        helper.make_node("If", ["yes"], ["order"], then_branch=branch, else_branch=branch)
    )
    return outside


@pytest.mark.parametrize("inside", [False, True], ids=["graph", "branch"])
@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([*DEAD, RANK], True),
        ([("Exp", ["x"], ["scores"]), RANK], False),  # the only value of that shape is what the node reads
        ([*DEAD, ("Add", ["scores", "early"], ["sum"]), ("TopK", ["sum", "k"], ["values", "order"])], True),
        ([*DEAD, RANK, ("Neg", ["early"], ["late"])], True),  # the late node's own result is not read, either
    ],
)
def test_a_dead_value_of_the_same_type_and_shape(nodes: list[Node], found: bool, inside: bool) -> None:
    model = model_of(nodes)
    assert takes_over_unread(in_a_branch(model) if inside else model) is found


def test_values_that_are_read_or_of_another_shape_or_type_are_no_concern() -> None:
    assert not takes_over_unread(model_of([*DEAD, RANK], k=TOKENS - 1))
    as_double = ("Cast", ["scores"], ["double"])
    other = model_of([*DEAD, as_double, ("TopK", ["double", "k"], ["values", "order"])])
    other.graph.node[2].attribute.append(helper.make_attribute("to", TensorProto.DOUBLE))
    assert not takes_over_unread(other)
    read = model_of([*DEAD, RANK])
    read.graph.output.append(helper.make_tensor_value_info("values", TensorProto.FLOAT, [TOKENS]))
    assert not takes_over_unread(read)


def test_a_value_that_is_needed_later_keeps_its_memory() -> None:
    model = model_of([("Neg", ["x"], ["early"]), ("TopK", ["x", "k"], ["values", "order"])])
    model.graph.output.append(helper.make_tensor_value_info("early", TensorProto.FLOAT, [TOKENS]))
    assert not takes_over_unread(model)


def test_an_output_of_unknown_shape_shares_nothing() -> None:
    model = model_of([*DEAD, ("TopK", ["scores", "n"], ["values", "order"])])
    model.graph.input.append(helper.make_tensor_value_info("n", TensorProto.INT64, [1]))
    assert not takes_over_unread(model)


def test_the_lowest_release_knows_it() -> None:
    assert held_by(model_of([*DEAD, RANK])).takes_over_unread
    assert not held_by(model_of([RANK])).takes_over_unread
