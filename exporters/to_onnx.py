"""Static graph to ONNX: `model.onnx` beside one `weights.bin` that holds each weight once."""

from __future__ import annotations

import hashlib
import logging
import warnings
from pathlib import Path
from typing import Any

import onnx
import onnxsim
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from morvit_deploy.bundle import Manifest, Port
from morvit_deploy.errors import StructureError
from morvit_deploy.exporters import onnx_structure
from morvit_deploy.exporters.base import Exporter, Request, Written, example_image
from morvit_deploy.exporters.onnx_macs import quiet_stderr
from morvit_deploy.exporters.run_onnx import GRAPH, WEIGHTS
from morvit_deploy.macs import dense_macs, schedule_macs
from morvit_deploy.unroll import StaticMoRViT

OPSET, IR_VERSION = 20, 10  # what ONNX Runtime, TensorRT and OpenVINO all take
INLINE_BYTES = 256  # smaller constants (shapes, axes) stay in the graph, where shape inference reads them
RESULTS = ("logits", "depth")


class OnnxExporter(Exporter):
    """Target `onnx`: opset 20, one initializer for each unique weight."""

    target = "onnx"

    def write(self, graph: StaticMoRViT, request: Request, folder: Path) -> Written:
        dynamic = request.batch == "dynamic"
        batch = 2 if dynamic else int(request.batch)
        model = _simplified(_traced(graph, batch, dynamic))
        probes = _hide_probes(model)
        _tidy(model)
        onnx.save_model(
            model,
            folder / GRAPH,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=WEIGHTS,
            size_threshold=INLINE_BYTES,
        )
        if not (folder / WEIGHTS).exists():  # every weight is as small as a shape constant
            onnx.save_model(
                model, folder / GRAPH, save_as_external_data=True, location=WEIGHTS, size_threshold=0
            )
        _check(folder / GRAPH)
        return Written(
            files=[GRAPH, WEIGHTS],
            inputs=tuple(_port(value) for value in model.graph.input),
            outputs=tuple(_port(value) for value in model.graph.output),
            probes=probes,
        )

    def prove(self, graph: StaticMoRViT, manifest: Manifest, folder: Path) -> dict[str, Any]:
        return onnx_structure.prove(
            folder / GRAPH, manifest, graph, _promised_macs(graph, manifest)
        ).as_dict()


class _AsTuple(nn.Module):
    """The exporter names outputs by position."""

    def __init__(self, graph: StaticMoRViT, names: list[str]) -> None:
        super().__init__()
        self.static, self.names = graph, names  # fx keeps the name `graph` for itself

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        out = self.static(image)
        return tuple(out[name] for name in self.names)


def _traced(graph: StaticMoRViT, batch: int, dynamic: bool) -> onnx.ModelProto:
    """Trace with results and probes as outputs, so that the values verify compares keep their names."""
    image = example_image(graph, batch)
    named = graph(image)
    names = [*(name for name in RESULTS if name in named), *(name for name in named if name not in RESULTS)]
    with warnings.catch_warnings(), _quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # the exporter's own deprecations; the result is checked below
        program = torch.onnx.export(
            _AsTuple(graph, names).eval(),
            (image,),
            input_names=["image"],
            output_names=names,
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic else None,
        )
    assert program is not None
    return program.model_proto


def _simplified(model: onnx.ModelProto) -> onnx.ModelProto:
    with quiet_stderr():  # it tells of what it could not fold, which reads as a failure
        simplified, sound = onnxsim.simplify(model)
    if not sound:
        raise StructureError(
            "onnxsim changed what the graph computes; report this with your checkpoint's config"
        )
    return simplified


def _check(path: Path) -> None:
    """What ONNX itself says of the written file."""
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise StructureError(
            f"the ONNX checker refuses the written graph, so no bundle was made: {error}"
        ) from error


def _hide_probes(model: onnx.ModelProto) -> tuple[str, ...]:
    """Take the probes off the outputs; those still computed for the logits keep their value names."""
    probes = [value.name for value in model.graph.output if value.name not in RESULTS]
    results = [value for value in model.graph.output if value.name in RESULTS]
    del model.graph.output[:]
    model.graph.output.extend(results)
    _drop_unread(model)
    alive = {name for node in model.graph.node for name in node.output}
    return tuple(name for name in probes if name in alive)


def _drop_unread(model: onnx.ModelProto) -> None:
    """Remove nodes and initializers that no output depends on."""
    needed = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    initializers = [init for init in model.graph.initializer if init.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(initializers)


def _merge_equal(model: onnx.ModelProto) -> None:
    """One initializer for each unique content: blocks that a checkpoint holds as equal copies are stored once."""
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    names, kept = {}, []
    for init in model.graph.initializer:
        content = hashlib.sha256(numpy_helper.to_array(init).tobytes()).digest()
        names[init.name] = first.setdefault((init.data_type, tuple(init.dims), content), init.name)
        if names[init.name] == init.name:
            kept.append(init)
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)


def _tidy(model: onnx.ModelProto) -> None:
    """The checkpoint's names for weights, no metadata, fixed versions."""
    names = {
        init.name: onnx_structure.weight_name(init.name.removeprefix("static."))
        for init in model.graph.initializer
    }
    _merge_equal(model)
    for init in model.graph.initializer:
        init.name = names[init.name]
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
        node.doc_string = ""
        del node.metadata_props[:]
        for i, name in enumerate(node.input):
            node.input[i] = names.get(name, name)
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = ""
        del value.metadata_props[:]
    del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:], model.functions[:]
    model.graph.name, model.graph.doc_string, model.doc_string = "morvit", "", ""
    model.producer_name, model.producer_version = "morvit-deploy", ""
    model.ir_version = IR_VERSION


def _promised_macs(graph: StaticMoRViT, manifest: Manifest) -> int:
    """MACs of one image, counted from the configuration alone."""
    if manifest.form == "masked":
        return dense_macs(graph.config)
    options = graph.options
    return schedule_macs(graph.config, graph.capacity, options.cls_only, options.frozen_keys)


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return Port(name=value.name, dtype=dtype, shape=shape)


class _quiet:  # reads as a verb
    """Only errors from some loggers while the block runs."""

    def __init__(self, *names: str) -> None:
        self._levels = {logging.getLogger(name): logging.getLogger(name).level for name in names}

    def __enter__(self) -> None:
        for logger in self._levels:
            logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        for logger, level in self._levels.items():
            logger.setLevel(level)
