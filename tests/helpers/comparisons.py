"""Comparisons made of given samples, and ONNX graphs made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from morvit_deploy.measuring.compare.baselines.published import of_baseline
from morvit_deploy.measuring.compare.results.rows import Comparison, NotMeasured, Row
from morvit_deploy.timing.samples import Block, Start

CONDITIONS: dict[str, Any] = {
    "date": "2026-11-27T12:00:00+00:00",
    "machine": {
        "processor": "a processor", "cores": 2, "memory_gib": 8, "system": "Linux", "python": "3.11",
        "instruction_sets": ["avx2"],
    },
    "versions": {"onnxruntime": "1.31.1"}, "load_average_before": [0.1, 0.1, 0.1], "cpu_used_before_percent": 1.0,
    "cpu_mhz": None, "cpu_governor": None, "threads": 2, "inputs": "synthetic pictures", "blocks": 3,
    "runs_per_block": 10,
    "parity": {"build/b16": {"images": 16, "max_abs": 1e-6, "tolerance": 1e-4, "apart": 0, "class_flips": 0}},
}  # fmt: skip  # of a machine that does not exist


def row(name: str, *blocks_ms: float, kind: str = "baseline", macs: int | None = 4_000_000_000) -> Row:
    """A row whose blocks take these milliseconds, run for run."""
    return Row(
        name=name,
        batch=1,
        blocks=tuple(Block((ms,) * 3, (ms,)) for ms in blocks_ms),
        kind=kind,
        runtime="onnxruntime",
        precision="fp32",
        image=224,
        parameters=25_000_000,
        macs_by_bucket=None if macs is None else {"": macs},
        file_bytes=100_000_000,
        starts=(Start(300.0, 50.0, 20.0, 10.0),),
        memory_mib={"peak": 200.0, "resident": 150.0},
        published=of_baseline(name),
    )


def comparison(*rows: Row) -> Comparison:
    """A result with these rows and one that was not measured."""
    left_out = NotMeasured("DynamicViT", "comes from a bundle of routing 'dynamicvit'; give one as BUNDLE")
    return Comparison("cpu", rows, dict(CONDITIONS), ("the machine was busy",), left_out=(left_out,))


def conv_graph(path: Path, side: int = 16, dtype: int = TensorProto.FLOAT, batch: int | str = 1) -> Path:
    """A convolution of stride 2 from 3 to 4 channels, a mean over the image, and a linear layer to 5 classes."""
    shape = (batch, 3, side, side) if dtype == TensorProto.FLOAT else (batch, side, side, 3)
    rng = np.random.default_rng(0)
    weights = {"kernel": (4, 3, 3, 3), "linear": (4, 5)}
    initializers = [
        numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name)
        for name, size in weights.items()
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "linear"], ["logits"]),
    ]
    image = helper.make_tensor_value_info("image", dtype, shape)
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, (batch, 5))
    graph = helper.make_graph(nodes, "by hand", [image], [logits], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save_model(model, path)
    return path
