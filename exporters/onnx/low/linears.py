"""The linear layers of a traced piece: which product reads which weight, and their form for integer kernels.

ONNX Runtime has an integer kernel for a Gemm of two matrices, but not for one with a float bias, which it makes of a
MatMul and the Add after it. So a layer to quantise is written as Gemm without a bias, then Add, with Reshapes around
the Gemm where activations do not have two axes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from morvit_deploy.errors import StructureError
from morvit_deploy.exporters.onnx.graphs.macs import Shapes, infer_shapes

PRODUCTS = ("MatMul", "Gemm")
ROUTERS = "routers."  # an error in a router flips decisions: routers stay in float


@dataclass(frozen=True)
class Linear:
    """One application of a layer: its product, the activation it reads, and the layer's name."""

    node: str
    input: str
    weight: str

    @property
    def layer(self) -> str:
        """`cycle.0.fc1` of the weight `cycle.0.fc1.weight`."""
        return layer_of(self.weight)


def layer_of(weight: str) -> str:
    """The layer that a weight belongs to."""
    return weight.removesuffix(".weight")


def linears(model: onnx.ModelProto) -> list[Linear]:
    """Every application of a layer that may be quantised, in the order of computation; routers are excluded."""
    weights = {
        init.name
        for init in model.graph.initializer
        if init.name.endswith(".weight") and len(init.dims) == 2 and not init.name.startswith(ROUTERS)
    }
    return [
        Linear(node.name, node.input[0], node.input[1])
        for node in model.graph.node
        if node.op_type in PRODUCTS and node.input[1] in weights
    ]


def as_gemms(model: onnx.ModelProto) -> None:
    """Write every layer as Gemm of matrices without a bias, then Add, in place; values keep their names."""
    graph, shapes = model.graph, infer_shapes(model)
    of = {linear.node: linear for linear in linears(model)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.name in of:
            nodes += _as_gemm(graph, node, of[node.name], shapes)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _as_gemm(
    graph: onnx.GraphProto, node: onnx.NodeProto, linear: Linear, shapes: Shapes
) -> list[onnx.NodeProto]:
    out, weight = node.output[0], shapes[linear.weight]
    bias = node.input[2] if node.op_type == "Gemm" and len(node.input) == 3 else None
    product = f"{out}_product" if bias else out
    rows = shapes[linear.input]
    if "?" in rows and len(rows) == 1:
        raise StructureError(
            f"the shape of {linear.input!r}, which {node.name!r} reads, is unknown; report this with your "
            "checkpoint's config"
        )
    if node.op_type == "Gemm" or len(rows) == 2:
        gemm = helper.make_node("Gemm", [linear.input, linear.weight], [product], name=node.name)
        return [gemm, *_bias(node, product, bias)]
    back = _shape([*rows[:-1], weight[-1]], out)
    flat, wide = f"{out}_rows", f"{out}_matrix"
    into = _constant(graph, f"{out}_to_rows", [-1, int(weight[0])])
    onto = _constant(graph, f"{out}_to_shape", back)
    return [
        helper.make_node("Reshape", [linear.input, into], [flat], name=f"{node.name}_rows"),
        helper.make_node("Gemm", [flat, linear.weight], [wide], name=node.name),
        helper.make_node("Reshape", [wide, onto], [out], name=f"{node.name}_shape"),
    ]


def _bias(node: onnx.NodeProto, product: str, bias: str | None) -> list[onnx.NodeProto]:
    if bias is None:
        return []
    return [helper.make_node("Add", [product, bias], list(node.output), name=f"{node.name}_bias")]


def _shape(dims: list[int | str], name: str) -> list[int]:
    """A Reshape's target shape; only the batch may be inferred (-1)."""
    known = [dim if isinstance(dim, int) else -1 for dim in dims]
    if known.count(-1) > 1:
        raise StructureError(f"value {name!r} has more dynamic dimensions than the batch: {dims}")
    return known


def _constant(graph: onnx.GraphProto, name: str, values: list[int]) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(values, dtype=np.int64), name))
    return name
