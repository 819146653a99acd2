"""Stores layers in blocks of 4 or 8 bits: all of a bundle (w8, w4), or a copy that late steps read (fast tail).

No images are needed: activations are rounded while the graph runs. Routers stay in float. A layer is stored once,
whichever steps and buckets apply it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.errors import CheckpointError, ConfigError
from morvit_deploy.exporters.onnx.graphs.assembly import Pieces
from morvit_deploy.exporters.onnx.graphs.graphs import copy_of, drop_unread
from morvit_deploy.exporters.onnx.graphs.macs import Shapes, infer_shapes
from morvit_deploy.exporters.onnx.low.blocks import (
    DOMAIN,
    PACKED,
    SCALES,
    SIZES,
    Blocks,
    block_size,
    product_of_blocks,
    to_blocks,
)
from morvit_deploy.exporters.onnx.low.linears import ROUTERS, Linear, layer_of, linears
from morvit_deploy.exporters.onnx.low.speed import measure_speed, overall_ratio
from morvit_deploy.model.plan import Plan
from morvit_deploy.model.precision import Lowering

WEIGHT_BITS = {"w8": 8, "w4": 4}
TAIL_BITS = 8
# Rows of a product up to which 8-bit weights are faster than float ones: reading the weight takes the time, not
# multiplying it. docs/decisions.md has the measurement.
FEW_ROWS = 16
# 4 bits are too few for the patch projection, whose errors reach every router; in float it adds 2 % to the files
KEPT_IN_FLOAT = {"w8": (ROUTERS,), "w4": (ROUTERS, "stem.")}

# an application, its rows (None: the batch is dynamic) and the layer's inputs to the weight's bits; None: float
Choose = Callable[[Linear, int | None, int], int | None]


def bits_of(precision: str, weight: str, width: int) -> int | None:
    """Bits of a weight with `width` inputs; None where it stays in float."""
    kept = precision not in WEIGHT_BITS or weight.startswith(KEPT_IN_FLOAT[precision])
    return None if kept or block_size(width) is None else WEIGHT_BITS[precision]


def tail_bits(weight: str, width: int, rows: int) -> int | None:
    """Bits of the copy that a product of so many rows reads in a fast tail; None where it reads the float weight."""
    few = rows <= FEW_ROWS and block_size(width) is not None and not weight.startswith(ROUTERS)
    return TAIL_BITS if few else None


def to_weight_blocks(pieces: Pieces, precision: str) -> tuple[Pieces, Lowering]:
    """Pieces whose layers are stored in blocks, and the record of it. ConfigError if no layer can be."""

    def choose(one: Linear, rows: int | None, width: int) -> int | None:
        return bits_of(precision, one.weight, width)

    stored, lowered = _lowered(pieces, choose)
    if not stored:
        raise ConfigError(
            f"precision: got {precision!r}, but no layer has a multiple of {min(SIZES)} inputs, which blocks of "
            "weights require; export in fp32 or int8"
        )
    layers = {layer_of(one.weight) for model in pieces.parts.values() for one in linears(model)}
    return lowered, Lowering(facts={"stored": _told(stored, len(layers) - len(stored))})


def to_fast_tail(
    pieces: Pieces, plan: Plan, feeds: Arrays, tell: Callable[[str], None]
) -> tuple[Pieces, Lowering]:
    """Pieces whose products of few rows read an 8-bit copy of the weight, and the record of it.

    `feeds` is a batch to time both on. ConfigError if no step has so few rows.
    """

    def choose(one: Linear, rows: int | None, width: int) -> int | None:
        return None if rows is None else tail_bits(one.weight, width, rows)

    stored, lowered = _lowered(pieces, choose)
    if not any(_applied_twice(pieces, layer) for layer in stored):
        raise ConfigError(
            f"fast_tail: no step runs on at most {FEW_ROWS} tokens in a run, so no step would be faster; leave it "
            "out, export with a --plan whose late steps keep few tokens, or with a smaller --batch"
        )
    tell("comparing its speed with fp32")
    speeds = measure_speed(pieces, lowered, plan, feeds)
    record = {name: speed.as_dict("fast_tail") for name, speed in speeds.items()}
    facts = {"stored": _told(stored, 0), "speed": record, "speed_ratio": overall_ratio(speeds, plan)}
    return lowered, Lowering(facts=facts)


def _applied_twice(pieces: Pieces, layer: str) -> bool:
    """Is a layer applied by several products of a piece, as those that all steps share are?"""
    return any([one.layer for one in linears(model)].count(layer) > 1 for model in pieces.parts.values())


def _lowered(pieces: Pieces, choose: Choose) -> tuple[dict[str, int], Pieces]:
    """Layer to bits, and the pieces whose products read them."""
    stored: dict[str, Blocks] = {}
    own = _only_factors(pieces.parts.values())
    lowered = pieces.map(lambda part, model: _with_blocks(model, stored, own, choose))
    return {layer_of(weight): blocks.bits for weight, blocks in stored.items()}, lowered


def _only_factors(models: Iterable[onnx.ModelProto]) -> set[str]:
    """Weights that only products read, as their second factor."""
    factors, others = set[str](), set[str]()
    for model in models:
        of = {one.node: one.weight for one in linears(model)}
        factors |= {*of.values()}
        for node in model.graph.node:
            others |= {
                name for place, name in enumerate(node.input) if of.get(node.name) != name or place != 1
            }
    return factors - others


def _with_blocks(
    model: onnx.ModelProto,
    stored: dict[str, Blocks],
    own: set[str],
    choose: Choose,
) -> onnx.ModelProto:
    """A copy of a piece in which the chosen products read blocks, which are added to `stored` once."""
    copy = copy_of(model)
    graph, shapes = copy.graph, infer_shapes(copy)
    held = {init.name: init for init in graph.initializer}
    of = {one.node: one for one in linears(copy) if one.weight in own}
    nodes: list[onnx.NodeProto] = []
    used: dict[str, Blocks] = {}
    for node in graph.node:
        one = of.get(node.name)
        bits = None if one is None else choose(one, _rows(one, shapes), int(shapes[one.weight][0]))
        if one is None or bits is None:
            nodes.append(node)
            continue
        if one.weight not in stored:
            stored[one.weight] = _blocks_of(held[one.weight], bits)
        used[one.weight] = stored[one.weight]
        nodes += _product(node, one, used[one.weight])
    del graph.node[:]
    graph.node.extend(nodes)
    for weight, blocks in used.items():
        graph.initializer.append(numpy_helper.from_array(blocks.packed, weight + PACKED))
        graph.initializer.append(numpy_helper.from_array(blocks.scales, weight + SCALES))
    drop_unread(graph)
    copy.opset_import.append(helper.make_opsetid(DOMAIN, 1))  # of all pieces: they may be joined
    return copy


def _product(node: onnx.NodeProto, one: Linear, blocks: Blocks) -> list[onnx.NodeProto]:
    """The product of blocks, then a Gemm's bias: the operator's own is not in every release."""
    out = node.output[0]
    bias = node.input[2] if node.op_type == "Gemm" and len(node.input) == 3 else None
    product = f"{out}_product" if bias else out
    nodes = [product_of_blocks(node.name, one.input, one.weight, product, blocks)]
    if bias:
        nodes.append(helper.make_node("Add", [product, bias], [out], name=f"{node.name}_bias"))
    return nodes


def _blocks_of(init: onnx.TensorProto, bits: int) -> Blocks:
    weight = numpy_helper.to_array(init)
    if not np.isfinite(weight).all():
        raise CheckpointError(
            f"{init.name}: got a weight that is not finite, which has no blocks; repair the checkpoint"
        )
    size = block_size(weight.shape[0])
    assert size is not None, "`bits_of` and `tail_bits` choose only such layers"
    return to_blocks(weight, bits, size)


def _rows(one: Linear, shapes: Shapes) -> int | None:
    """Rows of the product in a run; None where the batch is dynamic."""
    dims = [dim for dim in shapes[one.input][:-1] if isinstance(dim, int)]
    return int(np.prod(dims)) if len(dims) == len(shapes[one.input]) - 1 else None


def _told(stored: dict[str, int], floats: int) -> dict[str, int]:
    """The number of layers by bits, for the reader of a manifest."""
    counted = {f"{bits} bits": count for bits, count in sorted(Counter(stored.values()).items())}
    return counted | ({"float": floats} if floats else {})
