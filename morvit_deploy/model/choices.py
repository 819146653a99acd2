"""The values that export options accept. Imported for `--help`: no torch, no pydantic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "fp16", "int8", "bf16", "w8", "w4"]
PRECISION_WORDS = {  # what others call them
    "half": "fp16",
    "float16": "fp16",
    "single": "fp32",
    "float32": "fp32",
    "bfloat16": "bf16",
    "i8": "int8",
    "int4": "w4",
    "i4": "w4",
    "w8a16": "w8",
    "w4a16": "w4",
}


@dataclass(frozen=True)
class PrecisionRecord:
    """What an export in a precision needs, on every target that has it. Its gate is in `gates.GATES`."""

    # images of the user, beside those of verification
    calibration: Literal["no", "optional", "required"] = "no"
    why_required: str = ""  # why images are required
    ranges: bool = False  # has options for activation ranges, smoothing, and layers that stay in float
    elsewhere: str = ""  # what to do with a target that does not have it
    remedy: str = ""  # what to do where it misses its gate; "": what the exporter says


_BLOCKS = "weights in blocks are a product of ONNX Runtime (target 'onnx'); "
PRECISIONS: dict[str, PrecisionRecord] = {
    "fp32": PrecisionRecord(),
    "fp16": PrecisionRecord(calibration="optional"),
    "int8": PrecisionRecord(
        calibration="required",
        why_required="int8 needs the range of every activation, and only images like those it will meet show it",
        ranges=True,
    ),
    "bf16": PrecisionRecord(elsewhere="only TensorRT runs it (target 'trt'); elsewhere fp16 is as small"),
    "w8": PrecisionRecord(
        elsewhere=_BLOCKS
        + "for int8 weights elsewhere: weights='int8' (coreml, coreai) or precision 'int8' (trt)",
        remedy="--precision int8 with --images, or fp32, may keep more",
    ),
    "w4": PrecisionRecord(
        elsewhere=_BLOCKS
        + "for small weights elsewhere: weights='palette4' (coreml), or precision 'int8' (trt)",
        remedy="--precision w8 keeps more, in less than twice the size",
    ),
}

Variant = Literal["unrolled", "gather_scatter", "masked"]  # `form` in a manifest
Dispatch = Literal["single", "graph", "host"]
Input = Literal["uint8", "float"]
Output = Literal["logits", "features", "tokens"]  # what a graph returns; its output has this name
Method = Literal["minmax", "percentile", "entropy"]  # how int8 activation ranges are chosen
Int8Flavor = Literal["cpu", "trt"]  # the runtime that an int8 graph is written for
Layout = Literal["bsd", "bc1s"]  # token states as rows, (tokens, dim), or channels first, (1, dim, 1, tokens)
Select = Literal["topk", "onehot"]  # select tokens by index, or by a product with one-hot rows
Attention = Literal["manual", "fused"]  # matrix products and a softmax, or one operator
