"""From a torch module to one Core ML function: exported, converted, probes hidden."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from morvit_deploy.exporters.coreml.mil.types import Array
from morvit_deploy.exporters.coreml.mlpackage.classify import PROBABILITIES
from morvit_deploy.exporters.coreml.mlpackage.probes import hide
from morvit_deploy.exporters.coreml.mlpackage.upstream import quick_passes
from morvit_deploy.exporters.coreml.sdk.load import Model, coremltools, quiet
from morvit_deploy.exporters.functions.names import plain_name
from morvit_deploy.exporters.functions.tracing import ANSWERS, IMAGE, Outputs
from morvit_deploy.graph.pieces import Named
from morvit_deploy.model.answers.heads import SIGMOID

# of an image input: exact in fp16, and the patch weights, which take the rest, stay normal numbers
PIXEL_SCALE = 2.0**-8


@dataclass(frozen=True)
class Converted:
    """One function as a Core ML model that is not saved yet, and the probes inside it."""

    model: Model
    probes: tuple[str, ...]
    constants: Mapping[str, Array]  # its weights by the name of the operation that holds them


@dataclass(frozen=True)
class Wanted:
    """Options of a function."""

    ios: int
    precision: str  # fp32 or fp16
    pixels: bool  # the input `image` is a picture, not an array
    probabilities: str | None = (
        None  # activation of the head, if the function returns them besides the logits
    )


def convert(module: Named, example: Sequence[Tensor], wanted: Wanted) -> Converted:
    """A function whose outputs are `module.results`; other values keep their names inside it.

    Values are named by `plain_name`. As with ONNX, probes are traced as outputs and hidden again, so that the
    function that ships is the one that is examined.
    """
    ct = coremltools()
    named = module(*example)
    results = (*module.results, *([PROBABILITIES] if wanted.probabilities is not None else []))
    names = [*results, *(name for name in named if name not in results)]
    program = _exported(_Outputs(module, names, wanted.probabilities), example)
    with quiet(), quick_passes():
        model = ct.convert(
            program,
            inputs=[_input(name, value, wanted) for name, value in zip(module.inputs, example, strict=True)],
            outputs=[_output(name) for name in names],
            convert_to="mlprogram",
            minimum_deployment_target=_system(wanted),
            compute_precision=ct.precision.FLOAT16 if wanted.precision == "fp16" else ct.precision.FLOAT32,
            skip_model_load=True,
        )
        held = _constants(model)
        hidden = [plain_name(name) for name in names if name not in results]
        spec = model.get_spec()
        alive = hide(spec, hidden)
        model = ct.models.MLModel(spec, weights_dir=model.weights_dir, skip_model_load=True)
    inside = (name for name in names if name not in results)
    return Converted(model, tuple(name for name in inside if plain_name(name) in alive), held)


class _Outputs(Outputs):
    """Values of a function, and the probabilities of a classifier."""

    def __init__(self, module: Named, names: list[str], head: str | None) -> None:
        super().__init__(module, names)
        self.head = head

    def named(self, *inputs: Tensor) -> dict[str, Tensor]:
        out = super().named(*inputs)
        if self.head is not None:
            logits = out["logits"]
            out = out | {PROBABILITIES: logits.sigmoid() if self.head == SIGMOID else logits.softmax(dim=-1)}
        return out


def _exported(module: nn.Module, example: Sequence[Tensor]) -> ExportedProgram:
    """The program that coremltools' frontend reads, without the nodes that it does not support."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own deprecations
        program: ExportedProgram = torch.export.export(module.eval(), tuple(example)).run_decompositions({})
    for node in list(program.graph.nodes):
        if node.target is torch.ops.aten.alias.default:  # what remains of a slice that takes everything
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    return program


# Any below: descriptions of ports and systems, coremltools' own classes
def _input(name: str, value: Tensor, wanted: Wanted) -> Any:
    ct = coremltools()
    if name == IMAGE and wanted.pixels:
        color = ct.colorlayout.RGB if value.shape[1] == 3 else ct.colorlayout.GRAYSCALE
        return ct.ImageType(name=IMAGE, shape=tuple(value.shape), scale=PIXEL_SCALE, color_layout=color)
    half = wanted.precision == "fp16" and name != IMAGE
    dtype = (np.float16 if half else np.float32) if value.is_floating_point() else np.int32
    return ct.TensorType(name=plain_name(name), shape=tuple(value.shape), dtype=dtype)


def _output(name: str) -> Any:
    """Logits and features are float32; everything else has the precision that it is computed in."""
    ct = coremltools()
    if name in (*ANSWERS, PROBABILITIES):
        return ct.TensorType(name=name, dtype=np.float32)
    return ct.TensorType(name=plain_name(name))


def _system(wanted: Wanted) -> Any:
    return getattr(coremltools().target, f"iOS{wanted.ios}")


def _constants(model: Model) -> dict[str, Array]:
    """Arrays of more than one axis that the converted function holds."""
    operations = model._mil_program.functions["main"].find_ops(op_type="const")
    held = {operation.name: operation.outputs[0].val for operation in operations}
    return {name: value for name, value in held.items() if isinstance(value, np.ndarray) and value.ndim > 1}
