"""What options of an export can be. Light: `--help` imports it. No torch, no pydantic."""

from __future__ import annotations

from typing import Literal, get_args

Precision = Literal["fp32", "fp16", "int8", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PRECISION_WORDS = {
    "half": "fp16",
    "float16": "fp16",
    "single": "fp32",
    "float32": "fp32",
    "bfloat16": "bf16",
    "i8": "int8",
}

Variant = Literal["unrolled", "gather_scatter", "masked"]  # `form` in a manifest
Dispatch = Literal["single", "graph", "host"]
Input = Literal["uint8", "float"]
Method = Literal["minmax", "percentile", "entropy"]  # how int8 ranges are chosen
Int8Flavor = Literal["cpu", "trt"]  # the runtime that an int8 graph is for
