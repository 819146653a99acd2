"""Weights in blocks: each element is rounded to its nearest code, and another code or scale is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from morvit_deploy.exporters.onnx.low.blocks import (
    DOMAIN,
    PACKED,
    SCALES,
    Blocks,
    block_bytes,
    block_size,
    product_of_blocks,
    to_blocks,
    widened,
)

# activations are rounded to 8 bits in the same blocks: half a step of 127 in each element, at most
ACTIVATIONS_IN_8_BITS = 1.5e-2
BITS = pytest.mark.parametrize("bits", [8, 4])


def weight(width: int = 64, out: int = 12, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((width, out)).astype(np.float32)


@BITS
@pytest.mark.parametrize("width", [16, 48, 64, 96, 384])
def test_blocks_stand_for_their_weight_and_for_no_other(bits: int, width: int) -> None:
    values, size = weight(width), block_size(width)
    assert size is not None
    blocks = to_blocks(values, bits, size)
    assert blocks.stands_for(values)
    assert not blocks.stands_for(weight(width, seed=1)) and not blocks.stands_for(values * 1.05)
    step = np.repeat(np.abs(blocks.scales), size, axis=1).T
    beyond = np.abs(blocks.weight - values) / step
    assert beyond.max() <= (0.501 if bits == 8 else 1.001)
    assert block_bytes(values.shape, bits, size) == blocks.packed.nbytes + blocks.scales.nbytes


@BITS
def test_one_other_code_and_one_other_scale_are_noticed(bits: int) -> None:
    values = weight()
    blocks = to_blocks(values, bits, 64)
    codes = blocks.codes.copy()
    codes[3, 0, 5] ^= 1
    assert replace(blocks, codes=codes).wrong(values) == 1
    scales = blocks.scales.copy()
    scales[2, 0] *= 1.03
    assert not replace(blocks, scales=scales).stands_for(values)


def test_a_half_empty_range_is_no_good_rounding() -> None:
    """Four bits in eight: every element is nearest to its code, and most codes are not used."""
    values = weight()
    coarse = to_blocks(values, 4, 64)
    wide = Blocks(((coarse.codes.astype(np.int16) - 8) + 128).astype(np.uint8), coarse.scales, 8)
    assert not wide.stands_for(values)


@BITS
def test_blocks_of_zeros_and_of_tiny_numbers_are_zeros(bits: int) -> None:
    values = np.zeros((32, 3), np.float32)
    values[:, 1] = 1e-38
    blocks = to_blocks(values, bits, 32)
    assert (blocks.weight == 0).all() and blocks.stands_for(values)


def test_the_largest_block_that_divides_the_inputs_is_chosen() -> None:
    assert [block_size(width) for width in (768, 192, 96, 48, 24, 1)] == [128, 64, 32, 16, None, None]


def graph(blocks: Blocks, rows: int) -> onnx.ModelProto:
    width, out = blocks.weight.shape
    source = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [rows, width])
    result = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [rows, out])
    held = [
        numpy_helper.from_array(blocks.packed, "w" + PACKED),
        numpy_helper.from_array(blocks.scales, "w" + SCALES),
    ]
    node = product_of_blocks("product", "x", "w", "y", blocks)
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    made = helper.make_graph([node], "g", [source], [result], held)
    return helper.make_model(made, opset_imports=imports, ir_version=8)


@BITS
@pytest.mark.parametrize("kind", ["normal", "all codes at their ends"])
def test_the_runtime_multiplies_by_what_the_blocks_stand_for(bits: int, kind: str) -> None:
    """Sums of products at the ends of both ranges would saturate in 16 bits; they must not."""
    ends = kind != "normal"
    values = np.full((256, 8), 0.5, np.float32) if ends else weight(256, 8)
    x = np.ones((3, 256), np.float32) if ends else weight(256, 3, seed=2).T.copy()
    blocks = to_blocks(values, bits, 128)
    model = graph(blocks, 3)
    found = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    exact = x.astype(np.float64) @ blocks.weight.astype(np.float64)
    error = np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean())
    assert error < (1e-5 if ends else ACTIVATIONS_IN_8_BITS)
    read = widened(model)
    assert not read.problems and np.array_equal(read.blocks["w" + PACKED].weight, blocks.weight)
    assert [node.op_type for node in read.model.graph.node] == ["MatMul"]


@pytest.mark.parametrize(
    ("attribute", "value", "named"),
    [
        ("block_size", 96, "8 bits in blocks of 96 for 256 inputs, expected 128"),
        ("bits", 2, "got 2 bits"),
        ("accuracy_level", 0, "got accuracy_level 0, expected 4"),
        ("N", 9, "expected (9, 2, 128)"),
    ],
)
def test_an_attribute_that_the_runtime_would_read_otherwise_is_named(
    attribute: str, value: int, named: str
) -> None:
    model = graph(to_blocks(weight(256, 8), 8, 128), 3)
    next(one for one in model.graph.node[0].attribute if one.name == attribute).i = value
    read = widened(model)
    assert read.blocks == {} and named in read.problems[0] and "'product'" in read.problems[0]
