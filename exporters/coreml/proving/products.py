"""Checks products and storage: each weight is multiplied by as often as promised, and stored once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from morvit_deploy.exporters.coreml.mil.constexpr import CONSTEXPR, Weights
from morvit_deploy.exporters.coreml.mil.function import Constant, Function, Operation
from morvit_deploy.exporters.coreml.mil.types import Array
from morvit_deploy.exporters.functions.weights import Owners, Weight

FACTORS = {
    "linear": ("weight",),
    "conv": ("weight",),
    "matmul": ("x", "y"),
}  # parameters that may be a weight
LARGE = 4096  # elements: a factor of this size or more must be a weight of the model
SIZE_FACTOR, SIZE_SLACK = 1.03, 200_000  # weight file against the bytes of the unique parameters

IN_MODEL = "the model itself"  # the place of a constant that is not in the weight file

Place: TypeAlias = tuple[str, int] | str  # file and offset, or IN_MODEL


@dataclass(frozen=True, eq=False)
class Held:
    """An array that a function holds, as its operations read it, and where its parts are stored."""

    values: Array
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Part:
    """A function and the arrays that it holds, by the names of their values."""

    function: Function
    held: Mapping[str, Held]


def part_of(function: Function, unpacked: Weights) -> Part:
    """Find a function's arrays; compressed ones are unpacked, once for all functions that share `unpacked`."""
    held: dict[str, Held] = {}
    for operation in function.operations:
        if operation.type in CONSTEXPR:
            held[operation.outputs[0].name] = _unpacked(function, operation, unpacked)
        elif operation.type == "const" and isinstance(operation.constant.value, np.ndarray):
            constant = operation.constant
            held[operation.outputs[0].name] = Held(constant.value, (constant.stored or IN_MODEL,))
    return Part(function, held)


def _unpacked(function: Function, operation: Operation, unpacked: Weights) -> Held:
    reads = {name: item for name, (item,) in operation.inputs.items()}
    parts = {
        name: item if isinstance(item, Constant) else function.constants[item] for name, item in reads.items()
    }
    places = tuple(part.stored for part in parts.values() if part.stored)
    return Held(unpacked.unpack(operation, parts).value, places)


def factors(part: Part) -> Iterator[tuple[Operation, str, Array]]:
    """Each product by a constant: the operation, the constant's name and its values."""
    for operation in part.function.operations:
        for parameter in FACTORS.get(operation.type, ()):
            (item,) = operation.inputs[parameter]
            if isinstance(item, str) and item in part.held:
                yield operation, item, part.held[item].values
            elif isinstance(item, Constant) and isinstance(item.value, np.ndarray):
                yield operation, parameter, item.value


def count_uses(parts: Iterable[Part], owners: Owners) -> tuple[Counter[str], list[str]]:
    """How often functions multiply by each weight; and violations: large factors that are no weight."""
    uses: Counter[str] = Counter()
    violations = []
    for operation, name, values in (found for part in parts for found in factors(part)):
        owner = owners.owner(values)
        if owner is not None:
            uses[owner] += 1
        elif values.size >= LARGE:
            violations.append(
                f"{operation.type} {operation.name!r} multiplies by {name!r} {list(values.shape)}, which is not a "
                "weight of the model"
            )
    return uses, violations


def storage_violations(parts: Iterable[Part], owners: Owners) -> list[str]:
    """Weights that are stored more than once."""
    places: dict[str, set[tuple[Place, ...]]] = {}
    for array in (array for part in parts for array in part.held.values()):
        if array.values.ndim > 1 and (owner := owners.owner(array.values)):
            places.setdefault(owner, set()).add(array.places)
    return [
        f"weight {name!r} is stored {len(where)} times, expected once: {sorted(map(str, where))}"
        for name, where in places.items()
        if len(where) > 1
    ]


def size_violations(parts: Iterable[Part], weights: Iterable[Weight], precision: str) -> list[str]:
    """The weight file holds little more than the unique parameters."""
    constants = (constant for part in parts for constant in part.function.constants.values())
    total = sum({c.stored: c.value.nbytes for c in constants if c.stored is not None}.values())
    width = 2 if precision == "fp16" else 4
    limit = int(SIZE_FACTOR * width * sum(weight.values.size for weight in weights)) + SIZE_SLACK
    return [f"the weight file holds {total:,} bytes, at most {limit:,} expected"] if total > limit else []
