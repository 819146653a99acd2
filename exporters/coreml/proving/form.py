"""Checks a function against the manifest's options: operation set, precision, compression, outputs, selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from morvit_deploy.exporters.coreml.contract.form import CoremlForm
from morvit_deploy.exporters.coreml.mil.constexpr import CONSTEXPR
from morvit_deploy.exporters.coreml.mil.function import Function, Operation
from morvit_deploy.exporters.coreml.mil.types import FLOATS
from morvit_deploy.exporters.coreml.mlpackage.classify import LABEL

BY_INDEX = (
    *("topk", "argsort"),
    *("gather", "gather_along_axis", "gather_nd"),
    *("scatter", "scatter_along_axis", "scatter_nd"),
)
OPSETS_BEHIND = 10  # iOS 17 brought the operation set CoreML7, iOS 18 CoreML8


def computed(function: Function) -> Iterator[Operation]:
    """The operations that run for each image: no constants, and none that is unpacked when the package loads."""
    return (op for op in function.operations if op.type != "const" and op.type not in CONSTEXPR)


def form_violations(function: Function, precision: str, form: CoremlForm) -> list[str]:
    """Operation set, numbers, compression and classes are those of the manifest."""
    kinds = {value.type.dtype for op in computed(function) for value in op.outputs}
    compressed = any(op.type in CONSTEXPR for op in function.operations)
    found = {
        f"the operation set {function.opset}": function.opset == f"CoreML{form.ios - OPSETS_BEHIND}",
        f"numbers in {', '.join(sorted(kinds.intersection(FLOATS)))}": ("fp16" in kinds)
        == (precision == "fp16"),
        "compressed weights": form.weights != "float" or not compressed,
        f"the outputs {', '.join(function.outputs)}": (LABEL in function.outputs) == form.classifier,
    }
    classifier = "a classifier" if form.classifier else "no classifier"
    expected = f"{precision}, weights {form.weights}, iOS {form.ios}, {classifier}"
    return [
        f"function {function.name!r} has {what}, which contradicts the manifest: {expected}"
        for what, fits in found.items()
        if not fits
    ]


def head_violations(function: Function, activation: str) -> list[str]:
    """The probabilities of a classifier are made of the logits by the activation of the head."""
    made = {value.name: op for op in computed(function) for value in op.outputs}
    kinds = [_maker(op, made) for op in function.operations if op.type == "classify"]
    return [
        f"function {function.name!r}: the probabilities are made by {kind}, expected {activation}, the "
        "head_activation of the manifest"
        for kind in kinds
        if kind != activation
    ]


def _maker(classify: Operation, made: Mapping[str, Operation]) -> str:
    """Type of the operation that makes the probabilities, before a cast."""
    (name,) = classify.inputs["probabilities"]
    if not isinstance(name, str) or name not in made:
        return "a constant"
    op = made[name]
    return (
        next((made[read].type for read in op.reads if read in made), "cast") if op.type == "cast" else op.type
    )


def index_violations(function: Function, form: CoremlForm) -> list[str]:
    """With `onehot` no operation takes tokens by index."""
    if form.select != "onehot":
        return []
    return [
        f"function {function.name!r}: {op.type} {op.name!r}, where tokens are selected by products"
        for op in function.operations
        if op.type in BY_INDEX
    ]
