"""A plan's pieces below fp32: ranges, int8 with what must stay in float, or halves with the room they leave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from morvit_deploy.bundle.images import ImageFolder
from morvit_deploy.calibration.ranges.channels import Channels
from morvit_deploy.calibration.ranges.ranges import DEFAULT
from morvit_deploy.calibration.ranges.sensitivity import Search, score, search
from morvit_deploy.errors import CheckpointError
from morvit_deploy.exporters.onnx.graphs.assembly import Pieces
from morvit_deploy.exporters.onnx.low.linears import as_gemms, linears
from morvit_deploy.exporters.onnx.low.observe import Observer, observer_of
from morvit_deploy.exporters.onnx.low.quantize import Flavor, Ranges, lift, quantise
from morvit_deploy.exporters.onnx.low.ranges import ranges_of, smoothing_of
from morvit_deploy.exporters.onnx.low.speed import measure_speed, overall_ratio
from morvit_deploy.graph.lowering import smooth
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine.this import this_machine
from morvit_deploy.model.choices import Method
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering

HALF_MAX = 65504.0  # the largest number of fp16
SHOWN = 8  # activations that the report lists, the largest first
SEARCHED = 256  # images that a sensitivity search answers, once for each layer: one of them is 0.4 points


@dataclass(frozen=True)
class How:
    """What is asked of int8."""

    flavor: Flavor = "cpu"
    calibration: Method = DEFAULT
    smooth: bool = False
    max_drop: float | None = None  # points


@dataclass(frozen=True)
class Stream:
    """Images to calibrate with, as a bundle of this batch and input kind takes them."""

    folder: ImageFolder
    batch: int | str
    uint8: bool


Tell = Callable[[str], None]


def to_int8(
    graphs: Mapping[str, StaticMoRViT],
    trace: Callable[[], Pieces],
    plan: Plan,
    how: How,
    stream: Stream,
    tell: Tell,
) -> tuple[Pieces, Lowering]:
    """Pieces with int8 layers, and how they came about; with `smooth`, the modules are smoothed in place.

    Raises CheckpointError naming the node when an activation is not finite.
    """
    tell("looking at the calibration images")
    channels = Channels()
    traced = trace()
    floats = _gemms(traced)
    observer = Observer(floats, plan, stream.folder, batch=stream.batch, uint8=stream.uint8)
    observer.choose(channels.add)
    smoothing: dict[str, tuple[int, ...]] = {}
    if how.smooth:
        tell("fitting smoothing factors")
        graph = next(iter(graphs.values()))
        smoothing = smoothing_of(observer, graph)
        smooth(graph, smoothing)
        traced = trace()
        floats = _gemms(traced)
        observer = observer_of(observer, floats)
    ranges = ranges_of(observer, how.calibration, symmetric=how.flavor == "trt", tell=tell)
    tell("quantising")
    integers = floats.map(lambda part, model: quantise(model, ranges[part], how.flavor))
    found = None
    if how.max_drop is not None:
        tell("searching for the layers that int8 hurts")
        found = _search(observer, floats, integers, how.max_drop, tell)
        integers = _lifted(floats, integers, found.lifted)
    remarks = [channels.remark(stream.folder.config.preprocess)]
    if how.flavor == "cpu":
        remarks.append(remark_on_kernels(this_machine().instruction_sets))
    facts = _facts(remarks, found, ranges)
    if how.flavor == "cpu":
        tell("comparing its speed with fp32")
        speeds = measure_speed(traced, integers, plan, observer.first_feeds())
        facts["speed"] = {name: speed.as_dict() for name, speed in speeds.items()}
        facts["speed_ratio"] = overall_ratio(speeds, plan)
    return integers, Lowering(
        flavor=how.flavor,
        calibration=how.calibration,
        images=len(stream.folder),
        buckets=observer.facts(),
        smoothing=smoothing,
        lifted=() if found is None else found.lifted,
        facts=facts,
    )


def probe_halves(pieces: Pieces, plan: Plan, stream: Stream, tell: Tell) -> Lowering:
    """The room that fp16 activations leave: the largest of each value over all images, against 65504.

    Raises CheckpointError naming the node where one overflows.
    """
    tell("looking for activations that overflow fp16")
    observer = Observer(pieces, plan, stream.folder, batch=stream.batch, uint8=stream.uint8)
    observer.choose()
    largest: dict[str, float] = {}

    def see(part: str, name: str, value: np.ndarray) -> None:
        place = f"{part}/{name}" if plan.adaptive else name
        largest[place] = max(largest.get(place, 0.0), float(np.abs(value).max(initial=0)))

    try:
        observer.visit({part: halves(model) for part, model in pieces.parts.items()}, see)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; in fp16 the largest number is {HALF_MAX:g}: export in fp32"
        ) from None
    first = sorted(largest, key=lambda name: -largest[name])[:SHOWN]
    return Lowering(
        images=len(stream.folder),
        facts={
            "largest_activations": {name: largest[name] for name in first},
            "values_probed": len(largest),
            "room": HALF_MAX / max(max(largest.values(), default=0.0), 1.0),
        },
    )


def halves(model: onnx.ModelProto) -> list[str]:
    """Values that the nodes of a piece answer in fp16."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    return [
        name
        for node in model.graph.node
        for name in node.output
        if kinds.get(name) == onnx.TensorProto.FLOAT16
    ]


def _gemms(pieces: Pieces) -> Pieces:
    """Copies in the form that integer kernels take; the fp32 graph itself is what int8 is timed against."""

    def changed(part: str, model: onnx.ModelProto) -> onnx.ModelProto:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        as_gemms(copy)
        return copy

    return pieces.map(changed)


def _lifted(floats: Pieces, integers: Pieces, layers: tuple[str, ...] | frozenset[str]) -> Pieces:
    return integers.map(lambda part, model: lift(model, floats.parts[part], layers))


def _search(observer: Observer, floats: Pieces, integers: Pieces, max_drop: float, tell: Tell) -> Search:
    """The sensitivity search on a part of the calibration images: labels where all have one, else agreement."""
    few = observer.few(SEARCHED)
    expected = few.logits()
    layers = list(dict.fromkeys(one.layer for model in floats.parts.values() for one in linears(model)))

    def measure(lifted: frozenset[str]) -> Any:
        if lifted:
            tell(f"sensitivity: {', '.join(sorted(lifted))} in float")
        return score(
            expected, observer_of(few, _lifted(floats, integers, lifted)).logits(), few.folder.labels
        )

    return search(layers, measure, max_drop)


def remark_on_kernels(instruction_sets: Sequence[str]) -> str | None:
    """A sentence where uint8 × int8 products are summed in 16 bits: x86 with AVX2 and without VNNI."""
    if "avx2" not in instruction_sets or {"avx512_vnni", "avx_vnni"} & {*instruction_sets}:
        return None
    return (
        "this processor has AVX2 and no VNNI: sums of two products can overflow 16 bits there, so what `verify` "
        "finds here may be worse than on a processor with VNNI, and int8 is hardly faster"
    )


def _facts(
    remarks: Sequence[str | None], found: Search | None, ranges: Mapping[str, Ranges]
) -> dict[str, Any]:
    facts: dict[str, Any] = {"ranges": sum(map(len, ranges.values()))}
    if any(remarks):
        facts["remarks"] = [remark for remark in remarks if remark]
    if found is not None:
        facts["sensitivity"] = found.as_dict()
    return facts
