"""MACs of a Core AI function, and operations that a static graph must not have."""

from __future__ import annotations

import math
from collections.abc import Iterator

from morvit_deploy.exporters.coreai.printed.records import CONSTANT, OUTPUT, Graph, Operation
from morvit_deploy.exporters.functions.macs import Macs

PRODUCTS = ("batch_matmul", "broadcasting_batch_matmul", "conv2d")
# their work or the shape of their result depends on the image
FORBIDDEN = (
    "if",
    "while",
    "for",
    "non_zero",
    "nonzero",
    "unique",
    "scatter",
    "scatter_nd",
    "scatter_along_axis",
)
BY_INDEX = ("topk", "sort", "argsort", "gather", "gather_along_axis", "gather_nd")
# pass their first input on: moved, cut or in another type
_PASSES_ON = ("cast", "reshape", "transpose", "slice", "split", "expand_dims", "broadcast_in_dims")
_EQUALS = ("equal", "broadcasting_equal")


def count_macs(graph: Graph) -> Macs:
    """Of every product of a function."""
    total = Macs()
    for operation in products(graph):
        macs = _macs(operation)
        selects = any(_selects(graph, name) for name in operation.reads[:2])
        total += Macs(selection=macs) if selects else Macs(products=macs)
    return total


def products(graph: Graph) -> Iterator[Operation]:
    """The matrix products and convolutions of a function."""
    return (operation for operation in graph.operations if operation.kind in PRODUCTS)


def static_violations(graph: Graph) -> list[str]:
    """Operations whose work depends on the image, and open dimensions; a static graph has neither."""
    found = [
        f"{graph.name}: operation {op.kind} (%{op.name})" for op in graph.operations if op.kind in FORBIDDEN
    ]
    makes = ((op.name, kind) for op in graph.operations for kind in op.makes)
    return found + [
        f"{graph.name}: {name} has an open dimension: {kind.shape}"
        for name, kind in (*graph.inputs.items(), *makes)
        if not kind.is_static
    ]


def computed(graph: Graph) -> Iterator[Operation]:
    """What runs for each image: no constants."""
    return (operation for operation in graph.operations if operation.kind not in (CONSTANT, OUTPUT))


def _macs(operation: Operation) -> int:
    (made,), (first, second, *_) = operation.makes, operation.takes
    if operation.kind == "conv2d":  # weight (out, in, *kernel)
        return math.prod(made.sizes) * math.prod(second.sizes[1:])
    return math.prod(made.sizes) * first.sizes[-1]


def _selects(graph: Graph, name: str) -> bool:
    """Is this value the result of a comparison for equality, a one-hot matrix?"""
    operation = graph.makers.get(name)
    while operation is not None and operation.kind in _PASSES_ON:
        operation = graph.makers.get(operation.reads[0])
    return operation is not None and operation.kind in _EQUALS
