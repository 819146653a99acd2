"""Checks compressed weights: each is the model's, rounded by half a step at most, and no router's is compressed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.exporters.coreai.compress import is_compressed, scales_of
from morvit_deploy.exporters.coreai.names import PALETTES, Weights
from morvit_deploy.exporters.coreai.printed.program import CONSTANT, Operation, ProgramText
from morvit_deploy.exporters.coreai.printed.unpack import spread
from morvit_deploy.exporters.functions.weights import Owners, Weight, in_orientation, weight_of, weights_of
from morvit_deploy.graph.unroll import StaticMoRViT

Array: TypeAlias = NDArray[Any]

STORED = {"int8": "si8", "int4": "si4", "palette8": "ui8", "palette6": "ui6", "palette4": "ui4"}
# coreai-opt rounds weights to fp16 and to this many decimals before it clusters them
DECIMALS = 4


class Stored:
    """Finds the weight that a constant is: by content in float, the nearest one if it is compressed."""

    def __init__(self, weights: Iterable[Weight], *, half: bool) -> None:
        self.weights = tuple({weight.name: weight for weight in weights}.values())
        self._exact = Owners(self.weights, half=half, compressed=False)
        self._nearest = Owners(self.weights, half=half, compressed=True)

    def owner(self, constant: Operation, values: Array) -> str | None:
        """Name of the weight; None for a constant that is no weight."""
        return (self._nearest if constant.parts else self._exact).owner(values)

    def named(self, program: ProgramText, operation: Operation) -> str | None:
        """Name of the weight that an operation makes; None for any other operation."""
        if not (operation.parts or (operation.kind == CONSTANT and len(operation.makes[0].shape) > 1)):
            return None
        return self.owner(operation, program.array(operation))


def compression_violations(
    program: ProgramText,
    constants: Iterable[Operation],
    owners: Stored,
    routers: set[str],
    how: Weights,
) -> Iterator[str]:
    """Weights that are not stored as `--weights` says, or that differ from the model's by more than rounding."""
    model = {weight.name: weight.values for weight in owners.weights}
    for constant in {program.place(op): op for op in constants}.values():
        name = owners.owner(constant, program.array(constant))
        if name is None:
            continue
        expected = STORED[how] if name not in routers and is_compressed(model[name].shape, how) else "float"
        found = constant.parts[0].makes[0].dtype if constant.parts else "float"
        if found != expected:
            yield f"weight {name!r} is stored as {found}, expected {expected}"
        elif constant.parts:
            problem = (_palette_problem if how in PALETTES else _step_problem)(
                [program.array(part) for part in constant.parts], model[name], how
            )
            if problem:
                yield f"weight {name!r} {problem}"


def as_stored(
    exact: dict[str, StaticMoRViT], program: ProgramText, stored: Stored
) -> dict[str, StaticMoRViT]:
    """The static graphs, which share their weights, with the weights that compression leaves in a program."""
    modules = weights_of(next(iter(exact.values())))
    for operation in (op for graph in program.graphs.values() for op in graph.operations if op.parts):
        if name := stored.named(program, operation):
            weight = weight_of(modules[name])
            values = in_orientation(program.array(operation), weight.numpy())
            weight.data.copy_(torch.from_numpy(values))
    return exact


def _step_problem(parts: list[Array], weight: Array, how: Weights) -> str | None:
    """Scales that are not one for each output, or block; or an element that is more than half a step away."""
    data, scale, offset, least = parts
    if scale.size != (expected := scales_of(weight.shape, how)):
        return f"has {scale.size} scales, expected {expected}"
    if offset.any() or least.any():
        return "has an offset, expected steps around zero"
    step = spread(scale.astype(np.float64), data.shape)
    best = np.inf
    for way in _ways(weight.astype(scale.dtype).astype(np.float64), data.shape):
        # the quotient was rounded in the type of the scale
        allowed = 0.5 * step + np.abs(way) * np.finfo(scale.dtype).eps
        best = min(best, float(((np.abs(data * step - way) - allowed) / np.maximum(step, 1e-300)).max()))
    return None if best <= 0 else f"differs by {best + 0.5:.3g} steps of {how}, at most 0.5 expected"


def _palette_problem(parts: list[Array], weight: Array, how: Weights) -> str | None:
    """An entry that is not the mean of its elements, or an element that another entry is nearer to."""
    indices, table = parts[0].reshape(-1), parts[1].reshape(-1).astype(np.float64)
    unused = np.bincount(indices, minlength=table.size) == 0
    best = "has another shape than the model's"
    for way in _ways(weight.astype(np.float64), parts[0].shape):
        flat = way.reshape(-1)
        slack = 10.0**-DECIMALS + np.abs(flat) * np.finfo(np.float16).eps
        sums = np.bincount(indices, flat, table.size) / np.maximum(
            np.bincount(indices, minlength=table.size), 1
        )
        means = np.where(unused, table, sums)
        if (np.abs(means - table) > 10.0**-DECIMALS + np.abs(table) * np.finfo(np.float16).eps).any():
            best = f"has an entry of {how} that is not the mean of its elements"
        elif (np.abs(table[indices] - flat) > _to_nearest(flat, table[~unused]) + 2 * slack).any():
            best = f"has an element for which another entry of {how} is nearer"
        else:
            return None
    return best


def _to_nearest(values: Array, table: Array) -> Array:
    """Distance of each value to the nearest entry of a table."""
    ordered = np.sort(table)
    after = np.clip(np.searchsorted(ordered, values), 1, ordered.size - 1) if ordered.size > 1 else 0
    near = np.abs(values - ordered[after])
    distances: Array = np.minimum(near, np.abs(values - ordered[np.maximum(after - 1, 0)]))
    return distances


def _ways(weight: Array, shape: tuple[int, ...]) -> list[Array]:
    """A weight in the shape of what is stored: as it is, and turned."""
    squeezed = np.squeeze(weight)
    wanted = tuple(size for size in shape if size > 1)
    return [way.reshape(shape) for way in (squeezed, squeezed.T) if way.shape == wanted]
