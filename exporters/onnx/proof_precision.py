"""The structure proof below fp32: which weights and values are integers, and which stay in float.

An int8 weight is identified by its content: dequantised, every element is within half a step of the static module's
weight, and its largest element uses the full range. So the proof needs no quantiser to compare with.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper, shape_inference

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.onnx.form import OnnxForm
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.macs import infer_shapes
from morvit_deploy.exporters.onnx.low.blocks import PACKED, Blocks, Widened, block_bytes, block_size
from morvit_deploy.exporters.onnx.low.linears import PRODUCTS, ROUTERS, layer_of
from morvit_deploy.exporters.onnx.low.quantize import DQ, Q, activations_of
from morvit_deploy.exporters.onnx.low.weights import TAIL_BITS, WEIGHT_BITS, bits_of, tail_bits
from morvit_deploy.model.precision import Lowering

HALF_STEP = 0.5 * (1 + 1e-3)  # of rounding to nearest; the rest is the float32 division's own rounding
WHOLE_IN_FP16 = ("LayerNormalization", "Softmax", "TopK", "Sigmoid")
HALVES = {TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
ACTIVATION = {"cpu": TensorProto.UINT8, "trt": TensorProto.INT8}


@dataclass(frozen=True)
class Promise:
    """A weight of the static module: its name, how many products read it in one run, its size and its values."""

    name: str
    uses: int
    bytes: int
    values: NDArray[Any] = field(compare=False, repr=False)

    def is_int8(self, lowering: Lowering | None) -> bool:
        """Is it stored as integers? Routers and lifted layers are not."""
        if lowering is None or lowering.flavor is None or self.name.startswith(ROUTERS):
            return False
        return layer_of(self.name) not in lowering.lifted


@dataclass(frozen=True)
class Storing:
    """Which weights a bundle's files store as integers."""

    precision: str
    lowering: Lowering
    fast_tail: bool
    read_otherwise: frozenset[str]  # weights that not only products read: they stay in float

    @classmethod
    def of(cls, manifest: Manifest, models: Iterable[onnx.ModelProto]) -> Storing:
        """As the manifest says of these graphs."""
        form = manifest.target_form
        others = frozenset(
            name
            for model in models
            for graph in every_graph(model.graph)
            for node in graph.node
            for place, name in enumerate(node.input)
            if name and (node.op_type not in PRODUCTS or place != 1)
        )
        tail = isinstance(form, OnnxForm) and form.fast_tail
        return cls(manifest.precision, manifest.lowering or Lowering(), tail, others)

    @property
    def in_blocks(self) -> bool:
        """Are there weights in blocks?"""
        return self.fast_tail or self.precision in WEIGHT_BITS

    @property
    def kind(self) -> str:
        """How an integer weight is stored, in a word."""
        return "blocks" if self.in_blocks else "int8"

    def bits(self, promise: Promise) -> int | None:
        """Bits of a weight that is stored in blocks in place of float; None for others."""
        if promise.name in self.read_otherwise:
            return None
        return bits_of(self.precision, promise.name, promise.values.shape[0])

    def is_integer(self, promise: Promise) -> bool:
        """Is it stored as integers, and nowhere in float?"""
        return self.bits(promise) is not None or promise.is_int8(self.lowering)

    def stored_bytes(self, promise: Promise) -> int:
        """In the file, at most: blocks with their scales; an int8 weight with a scale and a zero point a channel."""
        shape, size = promise.values.shape, block_size(promise.values.shape[0])
        if (bits := self.bits(promise)) and size:
            return block_bytes(shape, bits, size)
        if promise.is_int8(self.lowering):
            return int(promise.values.size) + 5 * int(shape[1])
        copied = block_bytes(shape, TAIL_BITS, size) if self.fast_tail and size else 0
        return promise.bytes + copied


@dataclass(frozen=True)
class Integers:
    """The int8 weights of a plain graph."""

    keys: dict[str, str]  # initializer to the key of the weight that it stands for
    factor: dict[str, str]  # widened value to the initializer it comes from
    parameters: frozenset[str]  # initializers that are scales and zero points
    unknown: tuple[str, ...]  # int8 initializers that stand for no weight of the model
    blocks: Mapping[str, Blocks] = field(default_factory=dict)  # by the initializer of their codes


def read_integers(model: onnx.ModelProto, promised: Mapping[str, Promise], largest: int = 127) -> Integers:
    """Identify each int8 weight by content; `largest` is the magnitude of the largest integer."""
    held = {init.name: init for init in model.graph.initializer}
    keys, factor, parameters, unknown = {}, {}, set(), []
    for node in model.graph.node:
        if node.op_type not in (Q, DQ):
            continue
        parameters.update(node.input[1:])
        if node.op_type == Q or node.input[0] not in held:
            continue
        name = node.input[0]
        factor[node.output[0]] = name
        if name in keys:
            continue
        values, scale = numpy_helper.to_array(held[name]), numpy_helper.to_array(held[node.input[1]])
        key = next(
            (key for key, promise in promised.items() if _stands_for(values, scale, promise, largest)), None
        )
        if key is None:
            unknown.append(name)
        else:
            keys[name] = key
    return Integers(keys, factor, frozenset(parameters), tuple(unknown))


def with_blocks(read: Integers, wide: Widened, promised: Mapping[str, Promise]) -> Integers:
    """Identify each weight in blocks by content, too; in the widened graph it has the name of its codes."""
    keys, unknown = dict(read.keys), list(read.unknown)
    for name, blocks in wide.blocks.items():
        likely = sorted(promised, key=lambda key: promised[key].name + PACKED != name)  # found sooner
        key = next((key for key in likely if blocks.stands_for(promised[key].values)), None)
        if key is None:
            unknown.append(name)
        else:
            keys[name] = key
    return replace(read, keys=keys, unknown=tuple(unknown), blocks=wide.blocks)


def block_violations(
    model: onnx.ModelProto, read: Integers, promised: Mapping[str, Promise], storing: Storing
) -> list[str]:
    """Each weight is in blocks or in float as the precision says; in a fast tail, each product reads the right one.

    `model` is a widened graph.
    """
    found = {key: read.blocks[name].bits for name, key in read.keys.items() if name in read.blocks}
    violations = [_unknown_block(name, read.blocks, promised) for name in read.unknown if name in read.blocks]
    if storing.fast_tail:
        return violations + _tail_violations(model, read, promised)
    for key, promise in promised.items():
        if found.get(key) != (wanted := storing.bits(promise)):
            has, needs = (f"{bits} bits" if bits else "float" for bits in (found.get(key), wanted))
            violations.append(f"weight {promise.name!r} is stored in {has}, expected {needs}")
    return violations


def _unknown_block(name: str, blocks: Mapping[str, Blocks], promised: Mapping[str, Promise]) -> str:
    """What differs, where the name says which weight it should be."""
    found = f"initializer {name!r} is in blocks and stands for no weight of the model"
    named = next((one for one in promised.values() if one.name + PACKED == name), None)
    if named is None or blocks[name].steps.shape != named.values.shape:
        return found
    if wrong := blocks[name].wrong(named.values):
        return f"{found}: {wrong:,} of {named.values.size:,} elements are not the nearest to those of {named.name!r}"
    return f"{found}: its scales are not those of {named.name!r}"


def _tail_violations(model: onnx.ModelProto, read: Integers, promised: Mapping[str, Promise]) -> list[str]:
    """Products of few rows, and no others, read the copy in blocks."""
    shapes, violations = infer_shapes(model), []
    held = {init.name: init for init in model.graph.initializer if len(init.dims) == 2}
    for node in model.graph.node:
        name = node.input[1] if node.op_type in PRODUCTS else ""
        if name not in held:
            continue
        key = read.keys.get(name) or content_key(numpy_helper.to_array(held[name]))
        rows = math.prod(int(dim) for dim in shapes[node.input[0]][:-1])
        if key in promised and (wanted := tail_bits(promised[key].name, held[name].dims[0], rows)) != (
            found := read.blocks[name].bits if name in read.blocks else None
        ):
            has, needs = (f"{bits} bits" if bits else "float" for bits in (found, wanted))
            violations.append(
                f"node {node.name!r}, of {rows} rows, reads {name!r} in {has}, expected {needs}"
            )
    return violations


def integer_violations(
    model: onnx.ModelProto, integers: Integers, promised: Mapping[str, Promise], lowering: Lowering
) -> list[str]:
    """Each weight is int8 or float as `lowering` says, and only products with int8 weights read integers."""
    violations = [
        f"initializer {name!r} is int8 and stands for no weight of the model" for name in integers.unknown
    ]
    stored = set(integers.keys.values())
    for key, promise in promised.items():
        if promise.is_int8(lowering) and key not in stored:
            violations.append(f"weight {promise.name!r} is not stored as int8")
        if not promise.is_int8(lowering) and key in stored:
            violations.append(f"weight {promise.name!r} is stored as int8, expected float")
    return violations + _scale_violations(model, lowering) + _wiring_violations(model, integers, lowering)


def _scale_violations(model: onnx.ModelProto, lowering: Lowering) -> list[str]:
    """Activations are rounded by the scales and zero points that were fitted to the calibration images."""
    if not lowering.activations:  # an older manifest
        return []
    return [
        f"activation {name!r} is rounded by scale and zero point {found}, the manifest says "
        f"{lowering.activations.get(name)}"
        for name, found in activations_of(model).items()
        if found != lowering.activations.get(name)
    ]


def half_violations(model: onnx.ModelProto) -> list[str]:
    """Norms, softmax and routers compute in fp32."""
    inferred = shape_inference.infer_shapes(model)
    values = (*inferred.graph.value_info, *inferred.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {init.name: init.data_type for init in model.graph.initializer}
    routers = {init.name for init in model.graph.initializer if init.name.startswith(ROUTERS)}
    found = []
    for node in model.graph.node:
        narrow = [HALVES[kinds[n]] for n in (*node.input, *node.output) if kinds.get(n) in HALVES]
        if narrow and (node.op_type in WHOLE_IN_FP16 or routers.intersection(node.input)):
            found.append(f"node {node.name!r} ({node.op_type}) computes in {narrow[0]}, expected fp32")
    return found


def _wiring_violations(model: onnx.ModelProto, integers: Integers, lowering: Lowering) -> list[str]:
    """Integers go through Q, DQ and one product; nothing else reads them, and Q and DQ share their scale."""
    violations = []
    makers = {name: node for node in model.graph.node for name in node.output}
    held = {init.name: init for init in model.graph.initializer}
    wanted = ACTIVATION[str(lowering.flavor)]
    for node in model.graph.node:
        sources = [makers[name] for name in node.input if name in makers]
        wide = [source for source in sources if source.op_type == DQ]
        if node.op_type == DQ and any(source.op_type != Q for source in sources):
            violations.append(f"node {node.name!r} widens the output of {sources[0].name!r}, expected {Q}")
        elif node.op_type == DQ and sources and list(sources[0].input[1:]) != list(node.input[1:]):
            violations.append(f"nodes {sources[0].name!r} and {node.name!r} have other scales")
        elif node.op_type != DQ and any(source.op_type == Q for source in sources):
            violations.append(f"node {node.name!r} ({node.op_type}) reads integers, expected {DQ} only")
        elif wide and (node.op_type not in PRODUCTS or len(wide) != 2):
            violations.append(
                f"node {node.name!r} ({node.op_type}) reads a quantised value; only a product of a quantised "
                "activation and an int8 weight may"
            )
        if node.op_type == Q and (len(node.input) < 3 or held[node.input[2]].data_type != wanted):
            violations.append(
                f"node {node.name!r} rounds to another type than flavor {lowering.flavor!r} requires"
            )
    return violations


def _stands_for(values: NDArray[Any], scale: NDArray[Any], promise: Promise, largest: int) -> bool:
    """Is each element rounded to the nearest step, and is every channel's range fully used?"""
    if values.dtype != np.int8 or values.shape != promise.values.shape or scale.shape != values.shape[1:]:
        return False
    full = (np.abs(values.astype(np.int16)).max(axis=0) == largest) | (
        np.abs(promise.values).max(axis=0) == 0
    )
    if not full.all():
        return False
    return bool((np.abs(values * scale - promise.values) <= HALF_STEP * scale).all())


def content_key(array: NDArray[Any]) -> str:
    """Shape and content."""
    return f"{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"
