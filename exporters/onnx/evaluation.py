"""Evaluates written ONNX graphs in float64, with ONNX's reference evaluator and with values replaced inside.

Whatever the precision of the files, weights are exact: int8 ones are replaced by those they stand for, casts to
another float type and rounding to integers are left out, and √2, which GELU divides by, is not rounded. What remains
is what the graph means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from morvit_deploy.exporters.onnx.graphs.graphs import (
    FLOATS,
    branches,
    copy_without,
    drop_unread,
    every_graph,
    reads,
)
from morvit_deploy.exporters.onnx.low.quantize import DQ, Q
from morvit_deploy.verifying.replay import Values

# what the evaluator raises for a graph that does not fit together
EVALUATION_ERRORS = (ValueError, IndexError, KeyError, RuntimeError, TypeError, NotImplementedError)
COMPUTED = "_computed"  # suffix of a value that is replaced


class Erf(OpRun):
    """The evaluator's own calls Python for each element."""

    op_domain = ""

    def _run(self, x: NDArray[Any]) -> tuple[NDArray[Any]]:
        return (torch.erf(torch.from_numpy(np.ascontiguousarray(x))).numpy(),)


class Gelu(OpRun):
    """The evaluator has none."""

    op_domain = ""

    def _run(self, x: NDArray[Any], approximate: str = "none") -> tuple[NDArray[Any]]:
        tensor = torch.from_numpy(np.ascontiguousarray(x))
        return (torch.nn.functional.gelu(tensor, approximate=approximate).numpy(),)


class Evaluation:
    """A graph with its weights loaded, in float64. `replaced` are the values inside that each run is given.

    `exact` are the weights whose values in float64 are known, by the initializers of the graph that stand for them.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        outputs: Iterable[str],
        replaced: Iterable[str],
        exact: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        wide = copy_without(model, exact or {})
        self._widen(wide.graph)
        names = {name for graph in every_graph(wide.graph) for node in graph.node for name in node.output}
        self.replaced = [name for name in replaced if name in names]
        _cut(wide.graph, self.replaced)
        self.outputs = [name + COMPUTED if name in self.replaced else name for name in outputs]
        _keep(wide.graph, self.outputs)
        self.weights = _take_floats(wide.graph) | dict(exact or {})
        self.evaluator = ReferenceEvaluator(wide, new_ops=[Erf, Gelu])

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Values:
        """Inputs and replaced values to the outputs, by name; a replaced value is returned as it was computed."""
        given = {name: _wide(value) for name, value in feeds.items()}
        with np.errstate(all="ignore"):  # a checkpoint of NaN is found by its logits
            found = self.evaluator.run(self.outputs, {**self.weights, **given})
        names = (name.removesuffix(COMPUTED) for name in self.outputs)
        return dict(zip(names, found, strict=True))

    def _widen(self, graph: onnx.GraphProto) -> None:
        """Casts between float types and pairs of Q and DQ pass their input on."""
        for node in (node for inner in every_graph(graph) for node in inner.node):
            if node.op_type in (Q, DQ):
                node.op_type = "Identity"
                del node.input[1:], node.attribute[:]
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i in FLOATS:
                    attribute.i = TensorProto.DOUBLE
                elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in FLOATS:
                    values = _meant(attribute.t)
                    attribute.t.CopyFrom(numpy_helper.from_array(values, attribute.t.name))


def _take_floats(graph: onnx.GraphProto) -> Values:
    """Remove float initializers, also of branches, and return them in float64."""
    found: Values = {}
    for inner in every_graph(graph):
        floats = [init for init in inner.initializer if init.data_type in FLOATS]
        found |= {init.name: _meant(init) for init in floats}
        for init in floats:
            inner.initializer.remove(init)
    return found


def _meant(tensor: onnx.TensorProto) -> NDArray[np.float64]:
    """The values of a float tensor in float64; a number that is √2 rounded to its type is √2."""
    values = numpy_helper.to_array(tensor)
    if values.size == 1 and (values == np.asarray(math.sqrt(2), values.dtype)).all():
        return np.full(values.shape, math.sqrt(2))
    wide: NDArray[np.float64] = values.astype(np.float64)
    return wide


def _cut(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Rename what computes these values, so that the run's own are read."""
    cut = {name: name + COMPUTED for name in names}
    for node in (node for inner in every_graph(graph) for node in inner.node):
        node.output[:] = [cut.get(name, name) for name in node.output]
    graph.input.extend(onnx.ValueInfoProto(name=name) for name in cut)


def _keep(graph: onnx.GraphProto, outputs: Iterable[str]) -> None:
    """Return only these values, and compute only what they need, also in branches."""
    del graph.output[:]
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    needed = set(outputs)
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        if branches(node):
            places = [place for place, name in enumerate(node.output) if name in needed]
            node.output[:] = [node.output[place] for place in places]
            for branch in branches(node):
                kept = [branch.output[place] for place in places]
                del branch.output[:]
                branch.output.extend(kept)
                drop_unread(branch)
        needed |= reads(node)
    drop_unread(graph)


def _wide(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float64) if value.dtype.kind == "f" else value
