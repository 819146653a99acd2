"""TensorRT-RTX as a reader of what was written: it parses and builds engines without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest


def tensorrt_complaints(bundle: Path, build: bool = True, name: str = "model.onnx") -> list[str]:
    """What its parser, and its builder for SM89, say against a bundle's graph; empty when they take it."""
    trt = pytest.importorskip("tensorrt_rtx", reason="the rtx extra, where NVIDIA has a wheel of it")
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, builder.logger)
    parser.parse_from_file(str(bundle / name))
    complaints = [str(parser.get_error(number)) for number in range(parser.num_errors)]
    if complaints or not build:  # building takes seconds
        return complaints
    settings = builder.create_builder_config()
    settings.num_compute_capabilities = 1
    settings.set_compute_capability(trt.ComputeCapability.SM89, 0)
    built = builder.build_serialized_network(network, settings) is not None
    return [] if built else ["no engine was built"]
