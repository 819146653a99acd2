"""Target `trt`: what the rest of the program knows of it."""

from __future__ import annotations

from collections.abc import Collection

from morvit_deploy.exporters.targets import Needs, Target
from morvit_deploy.exporters.trt.names import BUILD, TIMING_CACHE
from morvit_deploy.exporters.trt.options import TrtOptions


def _runs_here(have: Collection[str], gpu: bool) -> str:
    """On a GPU only an engine runs."""
    products = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT-RTX"}
    if not gpu:
        return "ONNX Runtime on the CPU: there is no NVIDIA GPU"
    return next((f"{product} on the GPU" for name, product in products.items() if name in have), "")


TARGET = Target(
    name="trt",
    runs_here=_runs_here,
    runs_on="TensorRT or TensorRT-RTX on an NVIDIA GPU; elsewhere ONNX Runtime on the same graph",
    needs=Needs(  # engines are built where TensorRT is, here or on the device; without a GPU ONNX Runtime runs them
        export=("torch", "safetensors", "onnx", "onnxscript", "onnxsim", "onnxruntime"),
        run=("onnxruntime", "numpy", "pillow", "pydantic"),
    ),
    exporter="morvit_deploy.exporters.trt.export:TrtExporter",
    runner="morvit_deploy.exporters.trt.run:open_trt",
    board_files="morvit_deploy.exporters.trt.board:board_files",
    devices=("cuda", "jetson"),
    options=TrtOptions,
    form="morvit_deploy.exporters.trt.form:TrtForm",
    precision="fp16",
    outputs=("logits", "features", "tokens"),
    precisions=("fp32", "fp16", "int8", "bf16"),
    calibrates=True,
    made_later=(f"{BUILD}/engines.json", f"{BUILD}/{TIMING_CACHE}", f"{BUILD}/*.engine"),
    synonyms=("tensorrt", "tensor-rt", "nvidia", "tensorrt-rtx", "rtx"),
    int8_flavor="trt",
    limits={"topk": 3840},  # largest k of TensorRT's TopK layer
)
