"""The form that integer kernels take: the same function, and a Gemm of matrices for every layer but the routers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from config_matrix import named
from tiny_models import make_config, own_bucket, random_model, random_pixels

from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.low.linears import as_gemms, linears
from morvit_deploy.exporters.onnx.macs import infer_shapes
from morvit_deploy.exporters.onnx.trace import trace
from morvit_deploy.graph.ends import Options
from morvit_deploy.graph.pieces import Whole
from morvit_deploy.graph.unroll import unroll

CLOSE = 1e-5  # the same float32 products, biases added in another kernel
MODELS: list[dict[str, Any]] = [
    {},
    {"attention_scope": "all", "head_hidden": [14]},
    {"routing": "token_choice", "router": {"hidden": [12]}},
    {"qkv_bias": False},
]


def traced(changes: dict[str, Any], batch: int | str) -> onnx.ModelProto:
    config = make_config(**changes)
    static = unroll(random_model(config), own_bucket(config), Options(single=batch == 1))
    image = example_image(static, 2 if batch == "dynamic" else int(batch))
    return trace(Whole(static), [image], dynamic=batch == "dynamic")[0]


def logits(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": pixels})[0]


@pytest.mark.parametrize("changes", MODELS, ids=named)
@pytest.mark.parametrize("batch", [1, 3, "dynamic"])
def test_every_layer_is_a_gemm_and_the_answers_are_the_same(
    changes: dict[str, Any], batch: int | str
) -> None:
    model = traced(changes, batch)
    pixels = random_pixels(make_config(**changes), 3 if batch == "dynamic" else int(batch))
    expected, found = logits(model, pixels), linears(model)
    as_gemms(model)
    onnx.checker.check_model(model, full_check=True)
    assert [(one.node, one.weight) for one in linears(model)] == [(one.node, one.weight) for one in found]
    assert not any(one.weight.startswith("routers") for one in found)
    shapes = infer_shapes(model)
    by_name = {node.name: node for node in model.graph.node}
    for one in linears(model):
        assert by_name[one.node].op_type == "Gemm" and len(by_name[one.node].input) == 2
        assert len(shapes[one.input]) == 2
    assert np.abs(logits(model, pixels) - expected).max() <= CLOSE * max(1, np.abs(expected).max())


def test_a_shared_layer_has_one_name_in_all_its_steps() -> None:
    layers = [one.layer for one in linears(traced({}, 1))]
    assert layers.count("cycle.0.fc1") == 3 and layers.count("first.fc1") == 1
    assert {"stem.patch", "last.q", "last.kv", "classifier.head.0"} <= set(layers)
