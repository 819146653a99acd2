"""Quantises a plan's pieces to int8: ranges from images, quantised layers, and layers that stay in float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx

from morvit_deploy.calibration.ranges.channels import Channels
from morvit_deploy.calibration.ranges.ranges import DEFAULT
from morvit_deploy.calibration.ranges.sensitivity import Search, score, search
from morvit_deploy.exporters.onnx.graphs.assembly import STEM, WHOLE, Pieces
from morvit_deploy.exporters.onnx.graphs.graphs import copy_of
from morvit_deploy.exporters.onnx.low.linears import as_gemms, linears
from morvit_deploy.exporters.onnx.low.observe import Observer, Stream
from morvit_deploy.exporters.onnx.low.quantize import Ranges, activations_of, lift, quantise
from morvit_deploy.exporters.onnx.low.ranges import ranges_of, smoothing_of
from morvit_deploy.exporters.onnx.low.speed import measure_speed, overall_ratio
from morvit_deploy.exporters.request import Request
from morvit_deploy.graph.lowering import smooth
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine import integer_kernels
from morvit_deploy.machine.integer_kernels import IN_32_BITS
from morvit_deploy.model.choices import Int8Flavor
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering

Tell = Callable[[str], None]

SEARCHED = 256  # images that a sensitivity search runs, once for each layer; one of them is 0.4 points


def to_int8(
    graphs: Mapping[str, StaticMoRViT],
    trace: Callable[[], Pieces],
    plan: Plan,
    request: Request,
    flavor: Int8Flavor,
    stream: Stream,
    tell: Tell,
) -> tuple[Pieces, Lowering]:
    """Pieces with int8 layers, and the record of how they were made; `request.smooth` smooths the modules in place.

    With flavor `cpu`, weights have 7 bits where this processor's kernels would saturate with 8.
    Raises CheckpointError naming the node when an activation is not finite.
    """
    method = request.calibration or DEFAULT
    tell("assigning the calibration images to buckets")
    channels = Channels()
    traced = trace()
    floats = _gemms(traced)
    observer = Observer(floats, plan, stream)
    observer.choose(channels.add)
    smoothing: dict[str, tuple[int, ...]] = {}
    if request.smooth:
        tell("fitting smoothing factors")
        graph = next(iter(graphs.values()))
        smoothing = smoothing_of(observer, graph)
        smooth(graph, smoothing)
        traced = trace()
        floats = _gemms(traced)
        observer = replace(observer, pieces=floats)
    ranges = ranges_of(observer, method, symmetric=flavor == "trt", tell=tell)
    tell("quantizing")
    here = integer_kernels.kernels_here()
    bits = here.weight_bits if flavor == "cpu" else 8
    integers = floats.map(lambda part, model: quantise(model, ranges[part], flavor, weight_bits=bits))
    found = None
    if request.max_drop is not None:
        tell("searching for the layers that lose most accuracy in int8")
        found = _search(observer, floats, integers, request.max_drop, tell)
        integers = _lifted(floats, integers, found.lifted)
    remarks = [channels.remark(stream.folder.config.preprocess)]
    if flavor == "cpu":
        remarks.append(remark_on_kernels((here.instruction_set,)))
    record = _record(remarks, found, ranges)
    if flavor == "cpu":
        tell("comparing its speed with fp32")
        speeds = measure_speed(traced, integers, plan, observer.first_feeds())
        record["speed"] = {name: speed.as_dict("int8") for name, speed in speeds.items()}
        record["speed_ratio"] = overall_ratio(speeds, plan)
    return integers, Lowering(
        flavor=flavor,
        calibration=method,
        images=len(stream.folder),
        buckets=observer.counted(),
        smoothing=smoothing,
        lifted=() if found is None else found.lifted,
        activations=_activations(integers),
        weight_bits=bits,
        instruction_set=here.instruction_set,
        facts=record,
    )


def _gemms(pieces: Pieces) -> Pieces:
    """Copies in the form that integer kernels take; int8 is timed against the fp32 graphs as they were traced."""

    def changed(part: str, model: onnx.ModelProto) -> onnx.ModelProto:
        copy = copy_of(model)
        as_gemms(copy)
        return copy

    return pieces.map(changed)


def _activations(pieces: Pieces) -> dict[str, tuple[float, int]]:
    """Scales and zero points as the written files name them: values of a trunk have its bucket's prefix."""
    return {
        (name if part in (WHOLE, STEM) else f"{part}/{name}"): scale
        for part, model in pieces.parts.items()
        for name, scale in activations_of(model).items()
    }


def _lifted(floats: Pieces, integers: Pieces, layers: tuple[str, ...] | frozenset[str]) -> Pieces:
    return integers.map(lambda part, model: lift(model, floats.parts[part], layers))


def _search(observer: Observer, floats: Pieces, integers: Pieces, max_drop: float, tell: Tell) -> Search:
    """Search on at most SEARCHED calibration images, by their labels if all have one, else by agreement with fp32."""
    few = observer.few(SEARCHED)
    expected = few.logits()
    layers = list(dict.fromkeys(one.layer for model in floats.parts.values() for one in linears(model)))

    def measure(lifted: frozenset[str]) -> Any:
        if lifted:
            tell(f"sensitivity: {', '.join(sorted(lifted))} in float")
        mixed = replace(few, pieces=_lifted(floats, integers, lifted))
        folder = few.folder
        return score(expected, mixed.logits(), folder.labels, folder.config.head_activation)

    return search(layers, measure, max_drop)


def remark_on_kernels(instruction_sets: Collection[str]) -> str | None:
    """A remark where uint8 × int8 products are summed in 16 bits: on x86 with AVX2 and without VNNI."""
    if not {"avx2", "avx512f"} & {*instruction_sets} or {*IN_32_BITS} & {*instruction_sets}:
        return None
    return (
        "this processor has no VNNI and sums int8 products in 16 bits, so weights have 7 bits and no sum saturates; "
        "the bundle is correct on every processor, but int8 gains less speed here than with VNNI"
    )


def _record(
    remarks: Sequence[str | None], found: Search | None, ranges: Mapping[str, Ranges]
) -> dict[str, Any]:
    record: dict[str, Any] = {"ranges": sum(map(len, ranges.values()))}
    if any(remarks):
        record["remarks"] = [remark for remark in remarks if remark]
    if found is not None:
        record["sensitivity"] = found.as_dict()
    return record
