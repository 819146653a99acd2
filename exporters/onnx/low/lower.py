"""A plan's pieces to int8: ranges from images, quantised layers, those that must stay in float."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from morvit_deploy.calibration.ranges.channels import Channels
from morvit_deploy.calibration.ranges.ranges import DEFAULT
from morvit_deploy.calibration.ranges.sensitivity import Search, score, search
from morvit_deploy.exporters.onnx.graphs.assembly import Pieces
from morvit_deploy.exporters.onnx.low.linears import as_gemms, linears
from morvit_deploy.exporters.onnx.low.observe import Observer, Stream, observer_of
from morvit_deploy.exporters.onnx.low.quantize import Flavor, Ranges, lift, quantise
from morvit_deploy.exporters.onnx.low.ranges import ranges_of, smoothing_of
from morvit_deploy.exporters.onnx.low.speed import measure_speed, overall_ratio
from morvit_deploy.graph.lowering import smooth
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.machine import integer_kernels
from morvit_deploy.machine.integer_kernels import IN_32_BITS
from morvit_deploy.model.choices import Method
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering

Tell = Callable[[str], None]

SEARCHED = 256  # images that a sensitivity search answers, once for each layer: one of them is 0.4 points


@dataclass(frozen=True)
class How:
    """What is asked of int8."""

    flavor: Flavor = "cpu"
    calibration: Method = DEFAULT
    smooth: bool = False
    max_drop: float | None = None  # points


def to_int8(
    graphs: Mapping[str, StaticMoRViT],
    trace: Callable[[], Pieces],
    plan: Plan,
    how: How,
    stream: Stream,
    tell: Tell,
) -> tuple[Pieces, Lowering]:
    """Pieces with int8 layers, and how they came about; with `smooth`, the modules are smoothed in place.

    Weights for this machine's processor have as many bits as its kernels can sum; TensorRT's sums have 32 bits.

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
    here = integer_kernels.kernels_here()
    bits = here.weight_bits if how.flavor == "cpu" else 8
    integers = floats.map(lambda part, model: quantise(model, ranges[part], how.flavor, weight_bits=bits))
    found = None
    if how.max_drop is not None:
        tell("searching for the layers that int8 hurts")
        found = _search(observer, floats, integers, how.max_drop, tell)
        integers = _lifted(floats, integers, found.lifted)
    remarks = [channels.remark(stream.folder.config.preprocess)]
    if how.flavor == "cpu":
        remarks.append(remark_on_kernels((here.instruction_set,)))
    record = _record(remarks, found, ranges)
    if how.flavor == "cpu":
        tell("comparing its speed with fp32")
        speeds = measure_speed(traced, integers, plan, observer.first_feeds())
        record["speed"] = {name: speed.as_dict() for name, speed in speeds.items()}
        record["speed_ratio"] = overall_ratio(speeds, plan)
    return integers, Lowering(
        flavor=how.flavor,
        calibration=how.calibration,
        images=len(stream.folder),
        buckets=observer.counted(),
        smoothing=smoothing,
        lifted=() if found is None else found.lifted,
        weight_bits=bits,
        instruction_set=here.instruction_set,
        facts=record,
    )


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


def remark_on_kernels(instruction_sets: Collection[str]) -> str | None:
    """A sentence where uint8 × int8 products are summed in 16 bits: x86 with AVX2 and without VNNI."""
    if not {"avx2", "avx512f"} & {*instruction_sets} or {*IN_32_BITS} & {*instruction_sets}:
        return None
    return (
        "this processor has no VNNI and sums int8 products in 16 bits: weights have 7 bits, so that no sum "
        "overflows; the bundle is right on every processor, but int8 gains less speed here than with VNNI"
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
