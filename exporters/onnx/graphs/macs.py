"""Shapes and MACs of a written ONNX graph, from the graph alone."""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnxsim
from onnx import TensorProto, helper, shape_inference

from morvit_deploy.exporters.onnx.graphs.graphs import FLOATS, copy_without

PRODUCTS = ("MatMul", "Gemm", "Conv")
BLOCK_PRODUCT = (
    "MatMulNBits"  # of com.microsoft: the weight is stored in blocks, its shape in attributes K and N
)

Shapes = dict[str, tuple[int | str, ...]]  # an unknown dimension is the string "?"


def at_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """The graph as it is for one batch size; itself if that is fixed.

    A dynamic batch sets lengths (Range) that shape inference alone cannot follow, so the graph is folded.
    """
    dims = list(model.graph.input[0].type.tensor_type.shape.dim)
    if not any(dim.dim_param for dim in dims):
        return model
    shape = [batch if dim.dim_param else dim.dim_value for dim in dims]
    with quiet_stderr():
        fixed: onnx.ModelProto = onnxsim.simplify(
            model, overwrite_input_shapes={model.graph.input[0].name: shape}
        )[0]
    return fixed


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Capture what native code writes to file descriptor 2; printed only when the block fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        own = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(own, held.read())
            raise
        finally:
            os.dup2(own, 2)
            os.close(own)


def infer_shapes(model: onnx.ModelProto) -> Shapes:
    """The shape of every value."""
    bare = inferable(model)
    inferred = shape_inference.infer_shapes(bare, strict_mode=True, data_prop=True)
    values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
    shapes: Shapes = {value.name: _dims(value) for value in values}
    for node in inferred.graph.node:
        for name in node.output:
            shapes.setdefault(name, ("?",))
    return shapes | {init.name: tuple(init.dims) for init in model.graph.initializer}


def inferable(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy to infer shapes in, without shapes of the exporter's, which prove nothing.

    Weights are inputs of their shapes: inference would copy them four times. Products of blocks are plain ones of
    such inputs, which inference knows.
    """
    weights = {init.name: init for init in model.graph.initializer if _is_weight(init)}
    copy = copy_without(model, weights)
    del copy.graph.value_info[:]
    known = {value.name for value in copy.graph.input}
    for init in weights.values():
        if init.name not in known:
            copy.graph.input.append(helper.make_tensor_value_info(init.name, init.data_type, init.dims))
    for node in copy.graph.node:
        if node.op_type == BLOCK_PRODUCT:
            weight, shape = f"{node.name}_weight", _block_shape(node)
            copy.graph.input.append(helper.make_tensor_value_info(weight, TensorProto.FLOAT, shape))
            node.op_type, node.domain, node.input[:] = "MatMul", "", [node.input[0], weight]
            del node.attribute[:]
    return copy


def _is_weight(init: onnx.TensorProto) -> bool:
    """Whether it holds numbers that no shape depends on."""
    return len(init.dims) > 1 and init.data_type in FLOATS


def _block_shape(node: onnx.NodeProto) -> tuple[int, int]:
    """Shape (in, out) of the weight of a product of blocks."""
    found = {attribute.name: attribute.i for attribute in node.attribute}
    return found["K"], found["N"]


def count_macs(model: onnx.ModelProto, shapes: Shapes | None = None) -> int:
    """MACs of every MatMul, Gemm and Conv in one run; ValueError on an unknown shape.

    `shapes` are those of `infer_shapes`, if they are known.
    """
    shapes = infer_shapes(model) if shapes is None else shapes
    return sum(node_macs(node, shapes) for node in model.graph.node)


def node_macs(node: onnx.NodeProto, shapes: Shapes) -> int:
    """MACs of one node; 0 for one that is no product. ValueError on an unknown shape."""
    if node.op_type == BLOCK_PRODUCT:
        return math.prod(_known(node.output[0], shapes)) * _block_shape(node)[0]
    if node.op_type not in PRODUCTS:
        return 0
    out, weight = _known(node.output[0], shapes), _known(node.input[1], shapes)
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(weight[1:])
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return math.prod(out) * (weight[-1] if transposed else weight[-2])


def _known(name: str, shapes: Shapes) -> list[int]:
    dims = [dim for dim in shapes[name] if isinstance(dim, int)]
    if len(dims) != len(shapes[name]):
        raise ValueError(f"the shape of {name!r} is unknown: {shapes[name]}")
    return dims


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in dims)
