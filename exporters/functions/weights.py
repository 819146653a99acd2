"""The model's weights: how often a bucket multiplies by each, and which weight a stored constant is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from morvit_deploy.graph.style.stems import ConvStem
from morvit_deploy.graph.unroll import RESULTS, StaticMoRViT
from morvit_deploy.graph.weights import weight_name

Array: TypeAlias = NDArray[Any]

# Part of a weight's energy. A compressed copy within it is closest to its own weight; int4 leaves 0.1.
COMPRESSION_ERROR = 0.3


@dataclass(frozen=True)
class Weight:
    """A weight of the static graph, and how often a bucket multiplies by it."""

    name: str
    values: NDArray[np.float32]
    uses: int


@dataclass(frozen=True)
class Promise:
    """The weights that one run of a static graph multiplies by, and the names of its probes."""

    weights: tuple[Weight, ...]
    probes: frozenset[str]


def promise_of(graph: StaticMoRViT, image: Tensor) -> Promise:
    """Run a static graph on `image` and count the products with each weight; weights without one are left out."""
    uses: Counter[str] = Counter()
    modules = weights_of(graph)
    hooks = [
        module.register_forward_hook(lambda *_, name=name: uses.update([name]))
        for name, module in modules.items()
    ]
    values = graph(image)
    for hook in hooks:
        hook.remove()
    weights = tuple(
        Weight(name, weight_of(module).numpy(), uses[name]) for name, module in modules.items() if uses[name]
    )
    return Promise(weights, frozenset(values) - set(RESULTS))


def use_violations(uses: Mapping[str, int], weights: Iterable[Weight]) -> list[str]:
    """Weights that are not multiplied by as often as the static graph does."""
    promised = {weight.name: weight.uses for weight in weights}
    return [
        f"weight {name!r} is applied {uses.get(name, 0)} times, expected {promised.get(name, 0)}"
        for name in dict.fromkeys([*promised, *uses])
        if uses.get(name, 0) != promised.get(name, 0)
    ]


def weights_of(graph: StaticMoRViT) -> dict[str, nn.Module]:
    """Name of each weight that products may read, to the module that holds it."""
    return {
        weight_name(f"{name}.weight"): module for name, module in graph.named_modules() if _multiplies(module)
    }


def weight_of(module: nn.Module) -> Tensor:
    """The weight of a module of `weights_of`."""
    assert isinstance(module.weight, Tensor)
    return module.weight


def in_orientation(values: Array, weight: Array) -> Array:
    """A stored constant in the shape of the weight that it is, transposed if that is nearer."""
    ways = [
        way for way in (np.squeeze(values), np.squeeze(values).T) if way.shape == np.squeeze(weight).shape
    ]
    return min(ways, key=lambda way: _distance(way, weight)).reshape(weight.shape).astype(weight.dtype)


def _distance(values: Array, weight: Array) -> float:
    return float(np.square(values.astype(np.float64) - np.squeeze(weight)).sum())


def _multiplies(module: nn.Module) -> bool:
    if isinstance(module, ConvStem):
        return True
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.squeeze().ndim > 1


class Owners:
    """Finds the weight that a stored constant is, in either orientation.

    `half`: the package stores fp16. `compressed`: constants may differ from the weights by their compression.
    """

    def __init__(self, weights: Iterable[Weight], *, half: bool, compressed: bool) -> None:
        self._half, self._compressed = half, compressed
        self._names: dict[str, str] = {}  # content -> name
        self._of_shape: dict[tuple[int, ...], list[Weight]] = {}
        for weight in weights:
            self._names[self._key(weight.values)] = weight.name
            self._of_shape.setdefault(_sizes(weight.values), []).append(weight)
        # id -> the array, which is kept so that no other array gets its id, and the weight's name
        self._found: dict[int, tuple[Array, str | None]] = {}

    def owner(self, values: Array) -> str | None:
        """Name of the weight; None for a constant that is no weight."""
        if id(values) not in self._found:
            name = self._names.get(self._key(values))
            self._found[id(values)] = values, name or (self._nearest(values) if self._compressed else None)
        return self._found[id(values)][1]

    def _key(self, values: Array) -> str:
        return content_key(values.astype(np.float16) if self._half else values)

    def _nearest(self, values: Array) -> str | None:
        """The weight with the smallest difference, if that is as small as compression leaves it."""
        errors = {
            weight.name: _squared_error(values, weight.values)
            for weight in self._of_shape.get(_sizes(values), [])
        }
        best = min(errors, key=errors.__getitem__, default=None)
        return best if best is not None and errors[best] <= COMPRESSION_ERROR**2 else None


def content_key(values: Array) -> str:
    """Equal for a matrix and its transpose, with or without axes of size 1."""
    squeezed = np.squeeze(values)
    digests = [
        hashlib.sha256(np.ascontiguousarray(way).tobytes()).hexdigest() for way in (squeezed, squeezed.T)
    ]
    return f"{_sizes(values)} {min(digests)}"


def _squared_error(values: Array, weight: NDArray[np.float32]) -> float:
    """Energy of the difference, in the better orientation, as a part of the weight's energy."""
    wanted = np.squeeze(weight).astype(np.float64)
    ways = (np.squeeze(values), np.squeeze(values).T)
    errors = [
        float(np.square(way.astype(np.float64) - wanted).sum()) for way in ways if way.shape == wanted.shape
    ]
    energy = max(float(np.square(wanted).sum()), float(np.finfo(np.float64).tiny))
    return min(errors, default=np.inf) / energy


def _sizes(values: Array) -> tuple[int, ...]:
    return tuple(sorted(np.squeeze(values).shape))
