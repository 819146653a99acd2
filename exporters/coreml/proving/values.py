"""A package's functions compute, value by value, what the static graphs do in float64.

The routers' answers are constructed, as for every target: `verifying.constructed` says how.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.errors import BundleError, TargetError
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.coreml.mil.interpreter import MilPackage
from morvit_deploy.exporters.coreml.mil.types import Array
from morvit_deploy.exporters.coreml.proving.products import Part
from morvit_deploy.exporters.functions.names import MAIN, STEM, plain_name
from morvit_deploy.exporters.functions.weights import (
    Owners,
    in_orientation,
    weight_of,
    weights_of,
)
from morvit_deploy.graph.unroll import RESULTS, StaticMoRViT
from morvit_deploy.verifying.constructed import Script, answers, chosen_bucket, counts_at_bounds
from morvit_deploy.verifying.replay import Values, exact_copies, first_violation

FAULTS = (BundleError, TargetError)  # of a package that cannot be evaluated


def as_stored(
    graphs: Mapping[str, StaticMoRViT], parts: Iterable[Part], owners: Owners, precision: str
) -> dict[str, StaticMoRViT]:
    """The static graphs in float64 with the package's own weights: rounded to fp16, or as compression leaves them."""
    kind = kind_of(precision)
    exact = exact_copies(graphs, kind)
    first = next(iter(exact.values()))
    if kind is np.float16:
        first.half().double()  # the buckets share their weights
    modules = weights_of(first)
    for part in parts:
        for held in part.held.values():
            name = owners.owner(held.values) if held.values.ndim > 1 else None
            if name is not None:
                weight = weight_of(modules[name])
                weight.data.copy_(torch.from_numpy(in_orientation(held.values, weight.numpy())))
    return exact


def kind_of(precision: str) -> type[np.floating[Any]]:
    """The type of a package's floating-point constants."""
    return np.float16 if precision == "fp16" else np.float32


def value_violations(package: MilPackage, exact: StaticMoRViT, manifest: Manifest, bucket: str) -> list[str]:
    """The first value of a bucket that differs under the first script that shows it; `exact` is of `as_stored`."""
    image = torch.from_numpy(random_image(exact))
    names = [*manifest.probes_of(bucket), *(port.name for port in manifest.carried), *RESULTS]

    def evaluate(_: Script, given: Values) -> Values:
        return _evaluated(package, manifest, bucket, image.numpy(), names, given)

    return first_violation(exact, image / scale_of(manifest), evaluate, FAULTS, kind_of(manifest.precision))


def choice_violations(
    package: MilPackage, exact: Mapping[str, StaticMoRViT], manifest: Manifest
) -> list[str]:
    """The first constructed counts of tokens for which the stem returns another bucket than the plan's."""
    plan, image = manifest.plan, random_image(next(iter(exact.values())))
    for counts in counts_at_bounds(plan, manifest.config.num_patches):
        number = chosen_bucket(plan, counts)
        graph = exact[plan.buckets[number].name]
        drawn = answers(graph, [counts], kind_of(manifest.precision))
        given = {name: laid_out(z[0], graph) for name, z in drawn.items()}
        try:
            found = _stem(package, image, ["bucket"], given)["bucket"]
        except FAULTS as error:
            return [f"the stem cannot be evaluated: {error}"]
        if (chosen := int(found.item())) != number:
            return [
                f"the stem chooses bucket {chosen} where {counts} tokens run the steps, expected {number}"
            ]
    return []


def random_image(graph: StaticMoRViT) -> Array:
    """Random pixel values, or normalised floats, in the shape that a function takes."""
    shape = tuple(example_image(graph, 1).shape)
    random = np.random.default_rng(0)
    if graph.options.input == "uint8":
        return random.integers(0, 256, shape).astype(np.float64)
    return random.normal(size=shape)


def scale_of(manifest: Manifest) -> float:
    """What an image input is divided by before the static graph takes it."""
    return 256.0 if manifest.input == "uint8" else 1.0


def laid_out(z: Array, graph: StaticMoRViT) -> Array:
    """Router logits (tokens, channels) in the graph's layout."""
    return z if graph.layout.axis == -2 else np.ascontiguousarray(z.T[None, :, None])


def _evaluated(
    package: MilPackage, manifest: Manifest, bucket: str, image: Array, names: Iterable[str], given: Values
) -> Values:
    """Values of one bucket by their names in other targets; the stem's, if there is one, and then the trunk's."""
    if not manifest.plan.adaptive:
        return _named(package, MAIN, {"image": image}, names, given)
    carried = [port.name for port in manifest.carried]
    found = _stem(package, image, [*names, *carried], given)
    handed = {plain_name(name): given.get(name, found[name]) for name in carried}
    return found | _named(package, bucket, handed, names, given)


def _stem(package: MilPackage, image: Array, names: Iterable[str], given: Values) -> Values:
    return _named(package, STEM, {"image": image}, names, given)


def _named(package: MilPackage, function: str, feeds: Values, names: Iterable[str], given: Values) -> Values:
    """Values of one function, by their names in other targets."""
    types = package.function(function).types
    plain = {plain_name(name): name for name in names if plain_name(name) in types}
    kept = [name for name in plain if name not in feeds]
    found = package.evaluate(function, feeds, kept, {plain_name(name): z for name, z in given.items()})
    return {plain[name]: value for name, value in found.items() if name in plain}
