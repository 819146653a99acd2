"""Target `onnx`: what the rest of the program knows of it."""

from __future__ import annotations

from morvit_deploy.exporters.onnx.options import OnnxOptions
from morvit_deploy.exporters.targets import Needs, Target

TARGET = Target(
    name="onnx",
    runs_on="ONNX Runtime, CPU",
    runs_here=lambda have, gpu: "ONNX Runtime on the CPU",
    needs=Needs(
        export=("torch", "safetensors", "onnx", "onnxscript", "onnxsim", "onnxruntime"),
        run=("onnxruntime", "numpy", "pillow", "pydantic"),
    ),
    exporter="morvit_deploy.exporters.onnx.export:OnnxExporter",
    runner="morvit_deploy.exporters.onnx.run:open_onnx",
    profiled="morvit_deploy.exporters.onnx.run:profiled",
    options=OnnxOptions,
    form="morvit_deploy.exporters.onnx.form:OnnxForm",
    required="morvit_deploy.exporters.onnx.releases:required",
    board_files="morvit_deploy.exporters.onnx.board:board_files",
    devices=("cpu", "cuda", "jetson", "ssh", "browser"),
    outputs=("logits", "features", "tokens"),
    precisions=("fp32", "fp16", "int8", "w8", "w4"),
    calibrates=True,
    synonyms=("onnxruntime", "ort", "onnx-runtime"),
)
