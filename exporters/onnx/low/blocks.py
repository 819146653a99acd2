"""Weights in blocks of 4 or 8 bits, as ONNX Runtime's `com.microsoft.MatMulNBits` reads them. No torch.

A block is a run of consecutive inputs of one output channel, with one float scale. A code is unsigned; code
2^(bits - 1) stands for 0, so that no zero points are stored. A block uses the whole range of its codes: with 8 bits
its largest element is ±127 steps, with 4 bits −8 steps, as the scale may be negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from morvit_deploy.exporters.onnx.graphs.graphs import copy_of, every_graph
from morvit_deploy.exporters.onnx.graphs.macs import BLOCK_PRODUCT

DOMAIN = "com.microsoft"
# of a block, in inputs: the largest that divides a layer's inputs; 128 makes the fastest products and smallest files
SIZES = (128, 64, 32, 16)
PACKED, SCALES = "_blocks", "_scales"  # suffixes of a weight's name
# int8 products of activations that are rounded in blocks, too: the only fast kernels of 8-bit weights
ACCURACY_LEVEL = 4
HALF_STEP = 0.5 * (1 + 1e-3)  # of rounding to nearest; the rest is the float32 scale's own rounding
SMALLEST = 1e-30  # a block of smaller elements is stored as zeros: its scale would have too few bits
PER_BYTE = {4: 2, 8: 1}


@dataclass(frozen=True)
class Blocks:
    """A weight (in, out) in blocks: codes uint8 (out, blocks, size), scales float32 (out, blocks)."""

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    bits: int

    @property
    def packed(self) -> NDArray[np.uint8]:
        """Codes as they are stored, (out, blocks, bytes): of two 4-bit codes in a byte the first is the low half."""
        if self.bits == 8:
            return self.codes
        low, high = self.codes[..., 0::2], self.codes[..., 1::2]
        return (low | (high << 4)).astype(np.uint8)

    @property
    def steps(self) -> NDArray[np.int16]:
        """Codes as signed multiples of the scale, (in, out)."""
        return _as_weight(self.codes.astype(np.int16) - 2 ** (self.bits - 1))

    @property
    def weight(self) -> NDArray[np.float32]:
        """The weight that the blocks stand for, (in, out)."""
        wide = (self.codes.astype(np.float32) - 2.0 ** (self.bits - 1)) * self.scales[..., None]
        return _as_weight(wide.astype(np.float32))

    def stands_for(self, weight: NDArray[Any]) -> bool:
        """Is each element rounded to the nearest code, and is every block's range fully used?"""
        if self.steps.shape != weight.shape:
            return False
        full = (
            np.abs(self.codes.astype(np.int16) - 2 ** (self.bits - 1)).max(axis=-1) == _most(self.bits)
        ) | (np.abs(_in_blocks(weight, self.codes.shape[-1])).max(axis=-1) < SMALLEST)
        return bool(full.all()) and not self.wrong(weight)

    def wrong(self, weight: NDArray[Any]) -> int:
        """The number of elements whose code is not the nearest one to the weight's element."""
        scale = np.repeat(self.scales, self.codes.shape[-1], axis=1).T.astype(np.float64)
        beyond = weight / scale - self.steps
        highest = self.steps == 2 ** (self.bits - 1) - 1  # what would be one step higher has no code
        return int((~((np.abs(beyond) <= HALF_STEP) | (highest & (beyond > 0) & (beyond <= 1.001)))).sum())


def block_size(width: int) -> int | None:
    """Inputs in a block of a layer with this many; None where no block size divides them."""
    return next((size for size in SIZES if width % size == 0), None)


def to_blocks(weight: NDArray[np.float32], bits: int, size: int) -> Blocks:
    """Round a finite weight (in, out) to blocks of `size` inputs."""
    wide = _in_blocks(weight, size).astype(np.float64)  # (out, blocks, size)
    largest = np.take_along_axis(wide, np.abs(wide).argmax(axis=-1)[..., None], axis=-1)[..., 0]
    wanted = np.abs(largest) / 127 if bits == 8 else largest / -8
    scales = np.where(np.abs(largest) < SMALLEST, 1.0, wanted).astype(np.float32)
    steps = np.round(wide / scales[..., None].astype(np.float64)) + 2 ** (bits - 1)
    return Blocks(steps.clip(0, 2**bits - 1).astype(np.uint8), scales, bits)


def block_bytes(shape: tuple[int, ...], bits: int, size: int) -> int:
    """Bytes of a weight (in, out) in blocks, scales included."""
    elements = shape[0] * shape[1]
    return elements // PER_BYTE[bits] + 4 * elements // size


@dataclass(frozen=True)
class Widened:
    """A graph with a plain product for each product of blocks, of the weights that the blocks stand for."""

    model: onnx.ModelProto
    blocks: Mapping[str, Blocks]  # by the initializer of the codes, which has the weight's values in `model`
    problems: tuple[str, ...]  # attributes and inputs that the runtime would read in another way


def widened(model: onnx.ModelProto) -> Widened:
    """Read the products of blocks in a graph whose weights are loaded; the model itself where there are none."""
    if not _block_products(model.graph):
        return Widened(model, {}, ())
    copy = copy_of(model)
    held = {init.name: init for init in copy.graph.initializer}
    blocks: dict[str, Blocks] = {}
    problems: list[str] = []
    beside: set[str] = set()  # scales
    for node in _block_products(copy.graph):
        found = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        read, problem = _read(node, found, held)
        if read is None:
            problems.append(f"node {node.name!r}: {problem}")
            node.input[1] = _stand_in(copy.graph, node, found)
        else:
            blocks.setdefault(node.input[1], read)
        beside |= {*node.input[2:]}
        node.op_type, node.domain = "MatMul", ""
        del node.attribute[:], node.input[2:]
    for name, one in blocks.items():
        held[name].CopyFrom(numpy_helper.from_array(one.weight, name))
    others = [init for init in copy.graph.initializer if init.name not in beside]  # unread ones, too
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(others)
    kept = [entry for entry in copy.opset_import if entry.domain != DOMAIN]
    del copy.opset_import[:]
    copy.opset_import.extend(kept)
    return Widened(copy, blocks, tuple(dict.fromkeys(problems)))


def _block_products(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Also those of branches, which read the weights of the graph around them."""
    return [node for inner in every_graph(graph) for node in inner.node if node.op_type == BLOCK_PRODUCT]


def product_of_blocks(name: str, source: str, weight: str, result: str, blocks: Blocks) -> onnx.NodeProto:
    """The node that multiplies `source` by a weight in blocks."""
    out, count, size = blocks.codes.shape
    return helper.make_node(
        BLOCK_PRODUCT,
        [source, weight + PACKED, weight + SCALES],
        [result],
        name=name,
        domain=DOMAIN,
        K=count * size,
        N=out,
        bits=blocks.bits,
        block_size=size,
        accuracy_level=ACCURACY_LEVEL,
    )


def _read(
    node: onnx.NodeProto, found: Mapping[str, Any], held: Mapping[str, onnx.TensorProto]
) -> tuple[Blocks | None, str]:
    """The blocks that a node reads, or what is wrong with it."""
    if node.domain != DOMAIN or len(node.input) != 3 or not {*node.input[1:]} <= {*held}:
        return (
            None,
            f"expected codes and scales that are stored, without zero points; reads {[*node.input[1:]]}",
        )
    codes, scales = (numpy_helper.to_array(held[name]) for name in node.input[1:])
    bits, size = found.get("bits", 4), found.get("block_size", 0)
    width, out = found.get("K", 0), found.get("N", 0)
    if bits not in PER_BYTE or size != block_size(width):
        return None, f"got {bits} bits in blocks of {size} for {width} inputs, expected {block_size(width)}"
    if found.get("accuracy_level") != ACCURACY_LEVEL:
        return None, f"got accuracy_level {found.get('accuracy_level')}, expected {ACCURACY_LEVEL}"
    shape = (out, width // size, size // PER_BYTE[bits])
    if (
        codes.shape != shape
        or codes.dtype != np.uint8
        or scales.shape != shape[:2]
        or scales.dtype != np.float32
    ):
        return None, f"got codes {codes.shape} and scales {scales.shape}, expected {shape} and {shape[:2]}"
    if bits == 4:
        codes = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*shape[:2], size)
    return Blocks(codes, scales, bits), ""


def _stand_in(graph: onnx.GraphProto, node: onnx.NodeProto, found: Mapping[str, Any]) -> str:
    """Zeros in place of a weight that cannot be read, so that the rest of the graph can be examined."""
    name = f"unread_{node.name}"
    zeros = np.zeros((max(1, found.get("K", 1)), max(1, found.get("N", 1))), np.float32)
    graph.initializer.append(numpy_helper.from_array(zeros, name))
    return name


def _most(bits: int) -> int:
    """The magnitude of a block's largest step."""
    return 127 if bits == 8 else 8


def _in_blocks(weight: NDArray[Any], size: int) -> NDArray[Any]:
    blocks: NDArray[Any] = weight.T.reshape(weight.shape[1], -1, size)
    return blocks


def _as_weight(blocks: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(blocks.reshape(blocks.shape[0], -1).T)
