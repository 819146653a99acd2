"""MACs of a function, and operations that a static graph must not have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from morvit_deploy.exporters.coreml.mil.function import Constant, Function, Operation
from morvit_deploy.exporters.functions.macs import Macs

SCATTERS = ("scatter", "scatter_nd", "scatter_along_axis")
LISTS = ("make_list", "list_gather", "list_length", "list_read", "list_scatter", "list_write")
# their work or the shape of their result depends on the image
FORBIDDEN = ("while_loop", "cond", "non_zero", *SCATTERS, *LISTS)
_ATTENTION = "scaled_dot_product_attention"
# operations that pass their input on: moved, cut or in another type
_PASSES_ON = (
    *("cast", "identity", "reshape", "transpose", "squeeze", "expand_dims"),
    *("slice_by_index", "slice_by_size", "split"),
)
_OF_TWO = ("linear", "matmul", "einsum")  # products that may pick rows


def count_macs(function: Function) -> Macs:
    """Of every linear, conv, matmul, einsum and attention of a function; ValueError for an unknown shape."""
    makers = {value.name: op for op in function.operations for value in op.outputs}
    products = selection = 0
    for operation in function.operations:
        macs = _operation_macs(function, operation)
        if operation.type in _OF_TWO and any(_selects(makers, name) for name in operation.reads):
            selection += macs
        else:
            products += macs
    return Macs(products, selection)


def violations(function: Function) -> list[str]:
    """Operations whose work depends on the image, and open dimensions; a static graph has neither."""
    problems = [
        f"{function.name}: operation {op.type} ({op.name})"
        for op in every_operation(function.operations)
        if op.type in FORBIDDEN or op.blocks
    ]
    values = (*function.inputs, *(value for op in function.operations for value in op.outputs))
    problems += [
        f"{function.name}: {value.name} has an open dimension: {value.type.shape}"
        for value in values
        if not value.type.is_static
    ]
    return problems


def every_operation(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Also those in the bodies of loops and conditions."""
    for operation in operations:
        yield operation
        for block in operation.blocks:
            yield from every_operation(block)


def _operation_macs(function: Function, operation: Operation) -> int:
    def shape(parameter: str) -> tuple[int, ...]:
        (read,) = operation.inputs[parameter]
        return (read.type if isinstance(read, Constant) else function.types[read]).sizes

    if operation.type in ("linear", "conv"):  # weights (out, in), (out, in / groups, *kernel)
        return operation.outputs[0].type.elements * math.prod(shape("weight")[1:])
    if operation.type == "matmul":
        turned = function.constant(operation, "transpose_x")
        return operation.outputs[0].type.elements * shape("x")[-2 if turned is not None and turned else -1]
    if operation.type == "einsum":  # one for each way to give its letters a value
        equation = function.constant(operation, "equation").split("->")[0]
        sizes: dict[str, int] = {}
        for letters, read in zip(equation.split(","), operation.inputs["values"], strict=True):
            kind = read.type if isinstance(read, Constant) else function.types[read]
            sizes |= zip(letters.strip(), kind.sizes, strict=True)
        return math.prod(sizes.values())
    if operation.type == _ATTENTION:  # scores, then the values that they mix
        *batch, queries, width = shape("query")
        return math.prod(batch) * queries * shape("key")[-2] * (width + shape("value")[-1])
    return 0


def _selects(makers: Mapping[str, Operation], name: str) -> bool:
    """Is this value the result of a comparison for equality, a one-hot matrix?"""
    operation = makers.get(name)
    while operation is not None and operation.type in _PASSES_ON:
        (read, *_) = operation.inputs["x"]
        operation = makers.get(read) if isinstance(read, str) else None
    return operation is not None and operation.type in ("equal", "one_hot")
