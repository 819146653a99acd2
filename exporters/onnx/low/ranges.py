"""Ranges of the activations that a plan's layers read, and of their channels, over a folder of images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from morvit_deploy.calibration.ranges.ranges import Counts, Span, counted_over, range_of
from morvit_deploy.calibration.ranges.smoothing import smoothing_exponents
from morvit_deploy.exporters.onnx.low.linears import linears
from morvit_deploy.exporters.onnx.low.observe import Observer
from morvit_deploy.exporters.onnx.low.quantize import Ranges
from morvit_deploy.graph.lowering import smoothable
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.choices import Method

# the patch projection's input range for uint8 images, which gives a scale of exactly 1
PIXELS, CENTRED = (0.0, 255.0), (-127.0, 127.0)
PATCH = "stem.patch.weight"


def ranges_of(
    observer: Observer, method: Method, *, symmetric: bool, tell: Callable[[str], None] = lambda stage: None
) -> dict[str, Ranges]:
    """Part to tensor to (low, high), each part on its own images; two passes over them, one for minmax."""
    watched = {part: _inputs(model) for part, model in observer.pieces.parts.items()}
    spans: dict[tuple[str, str], Span] = defaultdict(Span)
    tell("first pass: extremes of the activations")
    observer.visit(watched, lambda part, name, value: spans[part, name].add(value))
    counts: dict[tuple[str, str], Counts] = {}
    if method != "minmax":
        counts = {place: counted_over(span, symmetric=symmetric) for place, span in spans.items()}
        tell("second pass: histograms of the activations")
        observer.visit(watched, lambda part, name, value: counts[part, name].add(value))
    ranges: dict[str, Ranges] = {
        part: {
            name: range_of(method, spans[part, name], counts.get((part, name)), symmetric=symmetric)
            for name in names
        }
        for part, names in watched.items()
    }
    return (
        _exact_pixels(observer, ranges, CENTRED if symmetric else PIXELS) if observer.stream.uint8 else ranges
    )


def smoothing_of(observer: Observer, graph: StaticMoRViT) -> dict[str, tuple[int, ...]]:
    """log2 factors for every smoothable place, from each channel's largest magnitude over all steps and buckets."""
    of_input: dict[tuple[str, str], set[str]] = defaultdict(set)
    for part, model in observer.pieces.parts.items():
        for linear in linears(model):
            of_input[part, linear.input].add(linear.layer)
    reach: dict[str, NDArray[Any]] = {}

    def see(part: str, name: str, value: NDArray[Any]) -> None:
        largest = np.abs(value).max(axis=tuple(range(value.ndim - 1)))
        for layer in of_input[part, name]:
            reach[layer] = np.maximum(reach[layer], largest) if layer in reach else largest

    observer.visit({part: _inputs(model) for part, model in observer.pieces.parts.items()}, see)
    exponents = {}
    for place in smoothable(graph):
        readers = [(layer, linear) for layer, linear in place.read_by if layer in reach]
        if readers:
            widest = np.max([reach[layer] for layer, _ in readers], axis=0)
            rows = np.max([linear.weight.abs().amax(dim=1).numpy() for _, linear in readers], axis=0)
            exponents[place.name] = tuple(smoothing_exponents(widest, rows).tolist())
    return exponents


def _inputs(model: onnx.ModelProto) -> list[str]:
    """Activations that layers read, in the order of computation, each once."""
    return list(dict.fromkeys(linear.input for linear in linears(model)))


def _exact_pixels(
    observer: Observer, ranges: Mapping[str, Ranges], known: tuple[float, float]
) -> dict[str, Ranges]:
    """Replace the range of the patch projection's input."""
    pixels = {
        (part, linear.input)
        for part, model in observer.pieces.parts.items()
        for linear in linears(model)
        if linear.weight == PATCH
    }
    return {
        part: {name: known if (part, name) in pixels else ends for name, ends in found.items()}
        for part, found in ranges.items()
    }
