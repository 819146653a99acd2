"""Headroom of the activations in fp16, whose largest number is 65504."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from morvit_deploy.errors import CheckpointError
from morvit_deploy.exporters.onnx.graphs.assembly import Pieces
from morvit_deploy.exporters.onnx.low.observe import Observer, Stream
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering

HALF_MAX = 65504.0  # the largest number of fp16
SHOWN = 8  # activations that the report lists, the largest first


def probe_halves(pieces: Pieces, plan: Plan, stream: Stream, tell: Callable[[str], None]) -> Lowering:
    """Record the largest magnitude of each fp16 activation over all images.

    Raises CheckpointError naming the node where one overflows.
    """
    tell("looking for activations that overflow fp16")
    observer = Observer(pieces, plan, stream)
    observer.choose()
    largest: dict[str, float] = {}

    def see(part: str, name: str, value: NDArray[Any]) -> None:
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
    """Values that the nodes of a piece compute in fp16."""
    inferred = onnx.shape_inference.infer_shapes(model)
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    return [
        name
        for node in model.graph.node
        for name in node.output
        if kinds.get(name) == onnx.TensorProto.FLOAT16
    ]
