"""A traced piece to int8 by ONNX Runtime's own Q/DQ quantiser: weights per channel, activations over given ranges.

Only the layers' products are quantised. Each weight becomes one int8 initializer with one scale for each output
channel, however many steps apply it; each step's activation has a scale of its own, as it is another value of the
unrolled graph. Biases are added in float: quantised, a shared bias would be another integer in every step.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from morvit_deploy.errors import StructureError
from morvit_deploy.exporters.onnx.graphs.graphs import copy_of, drop_unread, rename
from morvit_deploy.exporters.onnx.graphs.portable import IR_VERSION, OPSET
from morvit_deploy.exporters.onnx.low.linears import Linear, linears
from morvit_deploy.model.choices import Int8Flavor
from morvit_deploy.model.precision import WeightBits

Ranges = Mapping[str, tuple[float, float]]  # tensor -> (low, high)

SCALE, ZERO = "_scale", "_zero"  # suffixes of scales and zero points
Q, DQ = "QuantizeLinear", "DequantizeLinear"
_PRODUCTS = ["Gemm", "MatMul"]


def quantise(
    model: onnx.ModelProto,
    ranges: Ranges,
    flavor: Int8Flavor,
    keep: Collection[str] = (),
    weight_bits: WeightBits = 8,
) -> onnx.ModelProto:
    """A quantised copy of a piece that `as_gemms` has been through; `ranges` has every activation its layers read.

    cpu: uint8 activations with a zero point and int8 weights, which VNNI multiplies; GELU's one-sided output uses the
    whole range. trt: symmetric int8 activations, all that TensorRT supports. Layers in `keep` stay in float.
    With 7 bits, weights are from −64 to 64, so that no kernel's 16-bit sum of two products saturates.
    """
    known = {linear.node: linear for linear in linears(model) if linear.layer not in keep}
    tensors = {linear.input for linear in known.values()}
    copy = copy_of(model)
    if not known:
        return copy
    symmetric = flavor == "trt"
    with _no_advice():
        quantiser = QDQQuantizer(
            copy,
            per_channel=True,
            reduce_range=weight_bits == 7,  # of weights only
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            tensors_range={
                name: TensorData(lowest=np.float32(ranges[name][0]), highest=np.float32(ranges[name][1]))
                for name in sorted(tensors)
            },
            nodes_to_quantize=list(known),
            nodes_to_exclude=[],
            op_types_to_quantize=_PRODUCTS,
            extra_options={
                "ActivationSymmetric": symmetric,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                "OpTypesToExcludeOutputQuantization": _PRODUCTS,
                "QDQOpTypePerChannelSupportToAxis": dict.fromkeys(_PRODUCTS, 1),  # weights are (in, out)
            },
        )
        quantiser.quantize_model()
    quantiser.model.topological_sort()
    quantised = quantiser.model.model
    _only_products_read_integers(quantised, known)
    _name_tidily(quantised.graph, {linear.weight for linear in known.values()}, tensors)
    return _as_written(quantised)


def activations_of(model: onnx.ModelProto) -> dict[str, tuple[float, int]]:
    """Scale and zero point of each activation that is rounded, by the rounded value's name."""
    held = {init.name: init for init in model.graph.initializer}
    return {
        node.output[0]: (
            float(numpy_helper.to_array(held[node.input[1]])),
            int(numpy_helper.to_array(held[node.input[2]])),
        )
        for node in model.graph.node
        if node.op_type == Q and len(node.input) == 3
    }


def lift(quantised: onnx.ModelProto, original: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """A copy of a quantised piece with some layers in float again, as they are in the original."""
    copy = copy_of(quantised)
    floats = {init.name: init for init in original.graph.initializer}
    lifted = {linear.node: linear for linear in linears(original) if linear.layer in layers}
    for weight in sorted({linear.weight for linear in lifted.values()}):
        held = next(init for init in copy.graph.initializer if init.name == weight)
        held.CopyFrom(floats[weight])  # no other product reads it: a layer is lifted in all of its steps
    for node in copy.graph.node:
        if node.name in lifted:
            node.input[:2] = [lifted[node.name].input, lifted[node.name].weight]
    drop_unread(copy.graph)
    return copy


def _only_products_read_integers(model: onnx.ModelProto, known: Mapping[str, Linear]) -> None:
    """The quantiser replaces a value for all its readers; give nodes that are not quantised the float value again."""
    widened = {node.output[0]: node for node in model.graph.node if node.op_type == DQ}
    narrowed = {node.output[0]: node for node in model.graph.node if node.op_type == Q}
    for node in model.graph.node:
        if node.name in known or node.op_type in (Q, DQ):
            continue
        for place, name in enumerate(node.input):
            source = widened.get(name)
            if source is not None and source.input[0] in narrowed:
                node.input[place] = narrowed[source.input[0]].input[0]
    for value in model.graph.output:
        if value.name in widened:
            raise StructureError(
                f"output {value.name!r} would be quantized; report this with your checkpoint's config"
            )


def _name_tidily(graph: onnx.GraphProto, weights: set[str], tensors: set[str]) -> None:
    """int8 weights keep the weight's name; an activation's scale has no dot, which marks what belongs to a weight."""
    names: dict[str, str] = {}
    for weight in weights:
        names |= {
            f"{weight}_quantized": weight,
            f"{weight}_scale": f"{weight}{SCALE}",
            f"{weight}_zero_point": f"{weight}{ZERO}",
            f"{weight}_{DQ}_Output": f"{weight}_wide",
        }
    for tensor in tensors:
        plain = tensor.replace(".", "_")
        names |= {
            f"{tensor}_scale": f"{plain}{SCALE}",
            f"{tensor}_zero_point": f"{plain}{ZERO}",
            f"{tensor}_{Q}_Output": f"{plain}_narrow",
            f"{tensor}_{DQ}_Output": f"{plain}_wide",
        }
    rename(graph, names)
    for node in graph.node:
        if node.op_type in (Q, DQ):
            node.name = f"{node.op_type}_{node.output[0].replace('.', '_')}"


def _as_written(model: onnx.ModelProto) -> onnx.ModelProto:
    """Remove the quantiser's metadata, and set the opset and IR version of every other piece."""
    del model.graph.value_info[:], model.metadata_props[:]
    drop_unread(model.graph)
    versions = [
        (entry.domain, entry.version) for entry in model.opset_import if entry.domain != "com.microsoft"
    ]
    if versions != [("", OPSET)]:
        raise StructureError(f"ONNX Runtime's quantizer left opsets {versions}, expected {OPSET}")
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("", OPSET))
    model.producer_name, model.producer_version = "morvit-deploy", ""
    model.ir_version = IR_VERSION
    return model


@contextmanager
def _no_advice() -> Iterator[None]:
    """Silence the root logger: the quantiser recommends a preprocessing that these pieces have been through."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
