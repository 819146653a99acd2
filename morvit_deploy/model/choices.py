"""The values that export options accept. Imported for `--help`: no torch, no pydantic."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "fp16", "int8", "bf16"]
PRECISION_WORDS = {  # what others call them
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
Method = Literal["minmax", "percentile", "entropy"]  # how int8 activation ranges are chosen
Int8Flavor = Literal["cpu", "trt"]  # the runtime that an int8 graph is written for
Layout = Literal["bsd", "bc1s"]  # token states as rows, (tokens, dim), or channels first, (1, dim, 1, tokens)
Select = Literal["topk", "onehot"]  # select tokens by index, or by a product with one-hot rows
Attention = Literal["manual", "fused"]  # matrix products and a softmax, or one operator
