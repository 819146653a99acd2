"""From a torch module to a piece of ONNX: traced, simplified, without metadata. Bundles are made of pieces."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import onnxsim
import torch
from torch import Tensor, nn

from morvit_deploy.errors import StructureError
from morvit_deploy.exporters.onnx.graphs.graphs import (
    computed_values,
    drop_unread,
    merge_equal,
    rename,
)
from morvit_deploy.exporters.onnx.graphs.macs import quiet_stderr
from morvit_deploy.exporters.onnx.graphs.portable import OPSET, make_portable
from morvit_deploy.exporters.onnx.graphs.upstream import quick_traces
from morvit_deploy.graph.pieces import Named
from morvit_deploy.graph.weights import weight_name


def trace(
    module: Named, example: Sequence[Tensor], *, dynamic: bool
) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """A piece, and the names of the probes inside it.

    Traced with probes as outputs, so that the values `verify` compares keep their names; then only the results
    stay outputs. With `dynamic`, axis 0 of every input is the batch.
    """
    named = module(*example)
    names = [*module.results, *(name for name in named if name not in module.results)]
    with warnings.catch_warnings(), quiet_loggers("torch.onnx", "onnxscript", "onnx_ir"), quick_traces():
        warnings.simplefilter("ignore")  # the exporter's own deprecations; the result is checked below
        program = torch.onnx.export(
            _AsTuple(module, names).eval(),
            tuple(example),
            input_names=list(module.inputs),
            output_names=names,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in example),) if dynamic else None,
        )
    assert program is not None
    model = _simplified(program.model_proto)
    probes = _hide_probes(model, module.results)
    make_portable(model)
    _tidy(model)
    return model, probes


class _AsTuple(nn.Module):
    """The exporter names outputs by position."""

    def __init__(self, module: Named, names: list[str]) -> None:
        super().__init__()
        self.static, self.names = module, names  # fx keeps the name `graph` for itself

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        out = self.static(*inputs)
        return tuple(out[name] for name in self.names)


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    with quiet_stderr():  # it reports what it could not fold, which reads as a failure
        simplified, sound = onnxsim.simplify(model)
    if not sound:
        raise StructureError(
            "onnxsim changed what the graph computes; report this with your checkpoint's config"
        )
    assert isinstance(simplified, onnx.ModelProto)
    return simplified


def _hide_probes(model: onnx.ModelProto, results: tuple[str, ...]) -> tuple[str, ...]:
    """Take the probes off the outputs; those still computed for the results keep their value names."""
    probes = [value.name for value in model.graph.output if value.name not in results]
    kept = [value for value in model.graph.output if value.name in results]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    drop_unread(model.graph)
    alive = computed_values(model.graph)
    return tuple(name for name in probes if name in alive)


def _tidy(model: onnx.ModelProto) -> None:
    """The checkpoint's names for weights, no metadata."""
    graph = model.graph
    held = "static.static."  # _AsTuple's module, and that one's
    rename(
        graph,
        {
            i.name: weight_name(i.name.removeprefix(held))
            for i in graph.initializer
            if i.name.startswith(held)
        },
    )
    merge_equal(graph)
    for number, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{number}"
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    del graph.value_info[:], model.metadata_props[:], graph.metadata_props[:], model.functions[:]
    graph.name, graph.doc_string, model.doc_string = "morvit", "", ""
    model.producer_name, model.producer_version = "morvit-deploy", ""


@contextmanager
def quiet_loggers(*names: str) -> Iterator[None]:
    """Only errors from some loggers while the block runs."""
    levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
