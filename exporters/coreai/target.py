"""Target `coreai`: what the rest of the program knows of it."""

from __future__ import annotations

import sys
from collections.abc import Collection

from morvit_deploy.exporters.coreai.names import TESTED
from morvit_deploy.exporters.coreai.options import CoreaiOptions
from morvit_deploy.exporters.targets import Needs, Target
from morvit_deploy.model.answers.gates import ALL_FP16, GATES


def _runs_here(have: Collection[str], gpu: bool) -> str:
    return "Core AI" if sys.platform == "darwin" else "Apple's Core AI runtime on the CPU: no Apple device"


TARGET = Target(
    name="coreai",
    runs_on="Core AI (iOS 27, macOS 27); elsewhere Apple's runtime on the CPU",
    runs_here=_runs_here,
    needs=Needs(
        export=("torch", "safetensors", "coreai-torch", "coreai-core"),
        run=("coreai-core", "numpy", "pillow", "pydantic"),
        extra="coreai",
        tested=TESTED,
    ),
    exporter="morvit_deploy.exporters.coreai.export:CoreaiExporter",
    runner="morvit_deploy.exporters.coreai.run:open_coreai",
    devices=("cpu",),
    options=CoreaiOptions,
    form="morvit_deploy.exporters.coreai.form:CoreaiForm",
    outputs=("logits", "features", "tokens"),
    precisions=("fp32", "fp16"),
    why_not={
        "int8": "a Core AI asset computes in fp16 or fp32 and can store int8: weights='int8'",
    },
    gates=GATES | {"fp16": GATES[ALL_FP16]},  # the Neural Engine has no wider arithmetic
    dispatches=("host",),  # each bucket is a function
    synonyms=("core-ai", "aimodel", "ios27", "coreai-torch"),
    names_runtime=True,
    integers=("int32", "int32"),  # as in a Core ML package
)
