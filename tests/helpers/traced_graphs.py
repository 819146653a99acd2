"""Traced ONNX graphs of tiny models, and their logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from tiny_models import make_config, own_bucket, random_model

from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs.trace import trace
from morvit_deploy.graph.pieces import Whole
from morvit_deploy.graph.style.styles import Options, style_for_batch
from morvit_deploy.graph.unroll import unroll


def traced(changes: dict[str, Any], batch: int | str) -> onnx.ModelProto:
    config = make_config(**changes)
    static = unroll(random_model(config), own_bucket(config), Options(style=style_for_batch(batch)))
    image = example_image(static, 2 if batch == "dynamic" else int(batch))
    return trace(Whole(static), [image], dynamic=batch == "dynamic")[0]


def logits(model: onnx.ModelProto, pixels: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"image": pixels})[0]
