"""Runs a bundle on pictures in ONNX Runtime or OpenVINO, in an environment that has nothing else but numpy.

    python worker.py onnxruntime BUNDLE PICTURES.npy RESULTS.json

The bundle is opened and run by `examples/onnxruntime_only.py`, which users copy.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
AT_A_TIME = 32  # images, of a bundle that takes any number


def open_openvino(path: Path) -> Any:
    """Open one graph in OpenVINO on the CPU, which may compute in bfloat16 if it is not told otherwise."""
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    names = [output.get_any_name() for output in compiled.outputs]

    def run(feeds: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(names, (np.array(value) for value in compiled(feeds).values()), strict=True))

    return run


def main(package: str, folder: str, pictures: str, results: str) -> None:
    """Write every output of every picture, and the version of the runtime."""
    sys.path.insert(0, str(ROOT / "examples"))
    example = importlib.import_module("onnxruntime_only")
    opened = {"onnxruntime": example.open_onnx, "openvino": open_openvino}[package]
    bundle, pixels = example.Bundle(Path(folder), opened), np.load(pictures)
    step = AT_A_TIME if bundle.manifest["batch"] == "dynamic" else bundle.manifest["batch"]
    parts = [bundle.run(pixels[start : start + step]) for start in range(0, len(pixels), step)]
    outputs = {name: np.concatenate([part[name] for part in parts]).tolist() for name in parts[0]}
    version = importlib.import_module(package).__version__
    Path(results).write_text(json.dumps({"version": version, "outputs": outputs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
