"""What a saved Core ML package says of itself: multiply-accumulates, uses of weights, operations that must not be."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from morvit_deploy.exporters.mil_constexpr import CONSTEXPR
from morvit_deploy.exporters.mil_package import Constant, Function, Operation
from morvit_deploy.exporters.mil_types import ValueType, bytes_of

SCATTERS = ("scatter", "scatter_nd", "scatter_along_axis")
LISTS = ("make_list", "list_gather", "list_length", "list_read", "list_scatter", "list_write")
# their work or their answer's shape depends on the image
FORBIDDEN = ("while_loop", "cond", "non_zero", *SCATTERS, *LISTS)
_ATTENTION = "scaled_dot_product_attention"
# what hands its input on, moved, cut or in another type
_HANDS_ON = (
    "cast",
    "reshape",
    "transpose",
    "squeeze",
    "expand_dims",
    "slice_by_index",
    "slice_by_size",
    "identity",
    "split",
)
_OF_TWO = ("linear", "matmul", "einsum")  # products that may pick rows
_NO_TENSORS = ("list", "dictionary", "state")


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one run; `selection` are those with a matrix of zeros and ones, which picks rows."""

    products: int
    selection: int

    @property
    def total(self) -> int:
        return self.products + self.selection


@dataclass
class WeightUse:
    """One constant by its content, whatever its names."""

    type: ValueType
    names: set[str] = field(default_factory=set)
    uses: Counter[str] = field(default_factory=Counter)  # function -> how many operations read it there

    @property
    def bytes(self) -> int:
        """As it is stored."""
        return bytes_of(self.type.dtype, self.type.elements)


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


def weight_uses(functions: Mapping[str, Function]) -> dict[str, WeightUse]:
    """Digest of a constant array -> its uses in each function.

    A compressed weight is used wherever what it unpacks to is read. Constants without axes and texts are left out.
    """
    found: dict[str, WeightUse] = {}
    for name, function in functions.items():
        for constant, value, reads in _reads_of_constants(function):
            use = found.setdefault(constant.digest, WeightUse(constant.type))
            use.names.add(value)
            use.uses[name] += reads
    return found


def violations(function: Function) -> list[str]:
    """What a static graph must not hold: work that depends on the image, a dimension that is open."""
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
        return _known(read.type if isinstance(read, Constant) else function.types[read])

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
            sizes |= zip(letters.strip(), _known(kind), strict=True)
        return math.prod(sizes.values())
    if operation.type == _ATTENTION:  # scores, then the values that they mix
        *batch, queries, width = shape("query")
        return math.prod(batch) * queries * shape("key")[-2] * (width + shape("value")[-1])
    return 0


def _known(kind: ValueType) -> tuple[int, ...]:
    dims = tuple(dim for dim in kind.shape if dim is not None)
    if len(dims) != len(kind.shape):
        raise ValueError(f"the shape {kind.shape} has a dimension that is not known")
    return dims


def _selects(makers: Mapping[str, Operation], name: str) -> bool:
    """Does a comparison for equality make this value? It is a matrix of zeros and ones then."""
    operation = makers.get(name)
    while operation is not None and operation.type in _HANDS_ON:
        (read, *_) = operation.inputs["x"]
        operation = makers.get(read) if isinstance(read, str) else None
    return operation is not None and operation.type in ("equal", "one_hot")


def _reads_of_constants(function: Function) -> Iterator[tuple[Constant, str, int]]:
    """Constant arrays, a name and how many operations read each, through what unpacks it."""
    readers = Counter(name for op in function.operations if op.type not in CONSTEXPR for name in op.reads)
    readers.update(function.outputs)
    for operation in reversed(function.operations):  # what unpacks comes after what it unpacks
        if operation.type in CONSTEXPR:
            for name in operation.reads:
                readers[name] += readers[operation.outputs[0].name]
            yield from (
                (item, operation.outputs[0].name, readers[operation.outputs[0].name])
                for argument in operation.inputs.values()
                for item in argument
                if isinstance(item, Constant) and item.type.shape and item.type.dtype != "string"
            )
    for name, constant in function.constants.items():
        if constant.type.shape and constant.type.dtype not in ("string", *_NO_TENSORS):
            yield constant, name, readers[name]
