"""Target `coreml`: what the rest of the program knows of it."""

from __future__ import annotations

import sys
from collections.abc import Collection

from morvit_deploy.exporters.coreml.contract.options import CoremlOptions
from morvit_deploy.exporters.targets import Needs, Target
from morvit_deploy.model.answers.gates import ALL_FP16, GATES

INTERPRETER = () if sys.platform == "darwin" else ("torch",)  # runs packages where Core ML is not


def _runs_here(have: Collection[str], gpu: bool) -> str:
    return "Core ML" if sys.platform == "darwin" else "an interpreter on the CPU: this is not a Mac"


TARGET = Target(
    name="coreml",
    runs_on="Core ML; elsewhere an interpreter",
    runs_here=_runs_here,
    needs=Needs(
        export=("torch", "safetensors", "coremltools"),
        run=("coremltools", "numpy", "pillow", "pydantic", *INTERPRETER),
        extra="coreml",
        tested={"coremltools": ">=9.0,<9.1", "torch": ">=2.13,<2.14"},
    ),
    exporter="morvit_deploy.exporters.coreml.export:CoremlExporter",
    runner="morvit_deploy.exporters.coreml.run:open_coreml",
    devices=("mac", "iphone"),
    options=CoremlOptions,
    form="morvit_deploy.exporters.coreml.contract.form:CoremlForm",
    precision="fp16",
    outputs=("logits", "features", "tokens"),
    precisions=("fp32", "fp16"),
    why_not={
        "int8": "a Core ML package computes in fp16 or fp32 and can store int8: weights='int8'",
    },
    gates=GATES | {"fp16": GATES[ALL_FP16]},  # the Neural Engine has no wider arithmetic
    dispatches=("host",),  # Core ML has no branches that stay on the Neural Engine
    synonyms=("core-ml", "apple", "ios", "iphone", "mlpackage", "mlmodel"),
    names_runtime=True,  # Core ML or the interpreter
    integers=("int32", "int32"),  # Core ML returns neither bytes nor booleans
)
