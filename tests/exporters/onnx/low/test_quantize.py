"""A piece to int8: one integer initializer for each weight, a scale for each step, nothing else touched."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from tiny_models import make_config, random_pixels
from traced_graphs import logits, traced

from morvit_deploy.exporters.onnx.low.linears import as_gemms, layer_of, linears
from morvit_deploy.exporters.onnx.low.observe import open_session
from morvit_deploy.exporters.onnx.low.quantize import DQ, Q, Ranges, lift, quantise
from morvit_deploy.model.choices import Int8Flavor
from morvit_deploy.model.precision import LARGEST_WEIGHT, WeightBits

SAME = 1e-4  # of logits near 1: float32 round-off, where no rounded value lies on the edge between two steps
ROUNDING = 0.5 * (1 + 1e-3)  # of a step: to the nearest, and float32's own last bits


@pytest.fixture(scope="module")
def piece() -> onnx.ModelProto:
    model = traced({}, 1)
    as_gemms(model)
    return model


@pytest.fixture(scope="module")
def ranges(piece: onnx.ModelProto) -> Ranges:
    names = sorted({one.input for one in linears(piece)})
    probed = onnx.ModelProto()
    probed.CopyFrom(piece)
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = ort.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    seen = [session.run(names, {"image": p[None]}) for p in random_pixels(make_config(), 8)]
    return {
        name: (min(float(s[i].min()) for s in seen), max(float(s[i].max()) for s in seen))
        for i, name in enumerate(names)
    }


def held(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {init.name: numpy_helper.to_array(init) for init in model.graph.initializer}


def quantised_layers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """Layer to the node that widens its int8 weight."""
    weights = {init.name for init in model.graph.initializer if len(init.dims) == 2}
    return {
        layer_of(node.input[0]): node
        for node in model.graph.node
        if node.op_type == DQ and node.input[0] in weights
    }


@pytest.mark.parametrize("weight_bits", [7, 8])
@pytest.mark.parametrize("flavor", get_args(Int8Flavor))
def test_each_weight_is_one_integer_initializer(
    piece: onnx.ModelProto, ranges: Ranges, flavor: Int8Flavor, weight_bits: WeightBits
) -> None:
    model = quantise(piece, ranges, flavor, weight_bits=weight_bits)
    onnx.checker.check_model(model, full_check=True)
    before, after = held(piece), held(model)
    for weight in {one.weight for one in linears(piece)}:
        values, scale = after[weight], after[f"{weight}_scale"]
        assert values.dtype == np.int8 and scale.shape == (values.shape[1],)
        assert (np.abs(values * scale - before[weight]) <= ROUNDING * scale).all()
        assert set(np.abs(values.astype(int)).max(axis=0)) == {LARGEST_WEIGHT[weight_bits]}
    # `last.heads` says which channels belong to which head
    kept = {name for name, value in after.items() if value.dtype == np.float32 and value.ndim == 2}
    assert all(name.startswith(("routers", "stem", "last.heads")) for name in kept), (
        "no float copy of a weight is left"
    )
    for name, value in before.items():
        if name.startswith(("routers", "stem.positions")) or name.endswith("bias"):
            assert np.array_equal(after[name], value)


@pytest.mark.parametrize(
    ("flavor", "kind"), [("cpu", TensorProto.UINT8), ("trt", TensorProto.INT8)], ids=get_args(Int8Flavor)
)
def test_each_step_has_a_scale_of_its_own(
    piece: onnx.ModelProto, ranges: Ranges, flavor: Int8Flavor, kind: int
) -> None:
    model = quantise(piece, ranges, flavor)
    rounds = [node for node in model.graph.node if node.op_type == Q]
    assert len(rounds) == len({one.input for one in linears(piece)})
    assert len({node.input[1] for node in rounds}) == len(rounds)
    zeros = {init.name: init for init in model.graph.initializer}
    for node in rounds:
        assert zeros[node.input[2]].data_type == kind
        if flavor == "trt":
            assert numpy_helper.to_array(zeros[node.input[2]]) == 0, (
                "TensorRT takes symmetric activations only"
            )


def test_only_products_of_layers_read_integers(piece: onnx.ModelProto, ranges: Ranges) -> None:
    model = quantise(piece, ranges, "cpu")
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        wide = [name for name in node.input if name in makers and makers[name].op_type == DQ]
        assert not wide or (node.op_type == "Gemm" and len(wide) == 2), node.name
    kinds = Counter(node.op_type for node in model.graph.node)
    plain = Counter(node.op_type for node in piece.graph.node)
    for op_type in ("Softmax", "LayerNormalization", "TopK", "Sigmoid", "MatMul", "Gemm"):
        assert kinds[op_type] == plain[op_type]


@pytest.mark.parametrize("weight_bits", [7, 8])
def test_the_runtime_has_integer_kernels_for_all_of_it(
    piece: onnx.ModelProto, ranges: Ranges, tmp_path: Path, weight_bits: WeightBits
) -> None:
    """Else int8 would be slower than float: a float product over widened weights."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    model = quantise(piece, ranges, "cpu", weight_bits=weight_bits)
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert kinds["QGemm"] == len(linears(piece)) and kinds[DQ] == 0


@pytest.mark.parametrize("weight_bits", [7, 8])
def test_answers_are_close(piece: onnx.ModelProto, ranges: Ranges, weight_bits: WeightBits) -> None:
    pixels = random_pixels(make_config(), 8)
    expected = np.concatenate([logits(piece, p[None]) for p in pixels])
    for flavor in get_args(Int8Flavor):
        model = quantise(piece, ranges, flavor, weight_bits=weight_bits)
        actual = np.concatenate([logits(model, p[None]) for p in pixels])
        error = np.median(np.abs(actual - expected).max(axis=1))
        assert 0 < error < 0.2 * np.abs(expected).max(), flavor


def test_seven_bits_lose_nothing_to_saturation(piece: onnx.ModelProto, ranges: Ranges) -> None:
    """Integer kernels, whichever this processor has, agree with float products of the same rounded values."""
    model = quantise(piece, ranges, "cpu", weight_bits=7)
    integers, floats = open_session(model), open_session(model, integers=False)
    for p in random_pixels(make_config(), 8):
        (actual,), (expected,) = (s.run(["logits"], {"image": p[None]}) for s in (integers, floats))
        assert np.abs(actual - expected).max() < SAME


def test_lifting_every_layer_gives_the_piece_again(piece: onnx.ModelProto, ranges: Ranges) -> None:
    layers = {one.layer for one in linears(piece)}
    model = lift(quantise(piece, ranges, "cpu"), piece, layers)
    onnx.checker.check_model(model, full_check=True)
    assert not quantised_layers(model)
    assert not {Q, DQ} & {node.op_type for node in model.graph.node}
    pixels = random_pixels(make_config(), 2)
    for p in pixels:
        assert np.array_equal(logits(model, p[None]), logits(piece, p[None]))


def test_lifting_one_layer_is_keeping_it(piece: onnx.ModelProto, ranges: Ranges) -> None:
    lifted = lift(quantise(piece, ranges, "cpu"), piece, {"cycle.0.fc2"})
    kept = quantise(piece, ranges, "cpu", keep={"cycle.0.fc2"})
    assert "cycle.0.fc2" not in quantised_layers(lifted)
    assert set(quantised_layers(lifted)) == set(quantised_layers(kept))
    assert held(lifted)["cycle.0.fc2.weight"].dtype == np.float32
    pixels = random_pixels(make_config(), 1)
    assert np.array_equal(logits(lifted, pixels), logits(kept, pixels))
