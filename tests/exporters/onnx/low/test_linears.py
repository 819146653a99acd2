"""The form that integer kernels take: the same function, and a Gemm of matrices for every layer but the routers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from config_matrix import named
from tiny_models import make_config, random_pixels
from traced_graphs import logits, traced

from morvit_deploy.exporters.onnx.graphs.macs import infer_shapes
from morvit_deploy.exporters.onnx.low.linears import as_gemms, linears

CLOSE = 1e-5  # the same float32 products, biases added in another kernel
MODELS: list[dict[str, Any]] = [
    {},
    {"attention_scope": "all", "head_hidden": [14]},
    {"routing": "token_choice", "router": {"hidden": [12]}},
    {"qkv_bias": False},
]


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
    assert {"stem.patch", "last.q", "last.k", "last.v", "classifier.head.0"} <= set(layers)
