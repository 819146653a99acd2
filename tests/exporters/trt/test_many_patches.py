"""More patches than TensorRT's TopK ranks: 4,096, as 1,024 pixels with patches of 16 have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_models import TINY, make_config

from morvit_deploy.bundle.manifest import open_manifest
from morvit_deploy.exporters.onnx.graphs.graphs import every_graph
from morvit_deploy.exporters.onnx.graphs.plain import read_graph
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.exporters.verification import verify

NARROW = {"embed_dim": 8, "num_heads": 1, "mlp_dim": 8, "num_recursions": 2, "capacity": [64, 8]}
LARGE = {"image_size": 1024, "patch_size": 16, "preprocess": TINY["preprocess"] | {"resize": 1024}}


@pytest.mark.slow
def test_4096_patches_build_and_verify(exported: Callable[..., Path]) -> None:
    """The `last` block reads every token that left, so all 4,096 are ranked, whatever the capacity."""
    pytest.importorskip("tensorrt_rtx", reason="the rtx extra, where NVIDIA has a wheel of it")
    config = make_config(**LARGE, **NARROW)
    assert config.num_patches == 4096 > find_target("trt").limits["topk"]
    options = {"flavor": "rtx", "compute_capability": ("SM89",), "precision": "fp32"}
    bundle = exported(config, target="trt", **options)
    graph = read_graph(bundle / "build" / "model.onnx").graph
    assert sum(node.op_type == "TopK" for part in every_graph(graph) for node in part.node) >= 3
    structure = open_manifest(bundle).structure
    assert structure["proved"] and [engine["name"] for engine in structure["engines"]] == ["model"]
    verification = verify(bundle, bundle.parent / "checkpoint")
    assert verification.passed
