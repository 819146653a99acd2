"""Precisions of a bundle, how one below fp32 was made, and what it must keep. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from morvit_deploy.model.config import Strict

Precision = Literal["fp32", "fp16", "int8", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

Number = Annotated[int, Field(ge=0)]
WeightBits = Literal[7, 8]
LARGEST_WEIGHT: dict[int, int] = {7: 64, 8: 127}  # int8 weights are symmetric


@dataclass(frozen=True)
class Gate:
    """The least agreement with the float64 reference that a bundle passes with."""

    tokens: float  # at each step, part of all patch tokens that run it, or do not, as the reference says
    top1: float  # of the images' classes

    def allowed_flips(self, images: int) -> int:
        """Images that may change their class: of few images, one may, since no share of them is smaller."""
        return max(1, int((1 - self.top1) * images)) if self.top1 < 1 else 0


# int8: what the digits model is held to; below it, a step's tokens are others often enough to be seen in top-1.
# fp16: its rounding, 5e-4 of a value, moves only decisions that lay within it.
# bf16: its rounding is eight times that, 4e-3 of a value, as much as an int8 step of a full range.
# Core ML's fp16: the Neural Engine has no wider arithmetic, so the residual stream and the routers round as well,
# where other targets keep both in fp32.
ALL_FP16 = "fp16 throughout"
GATES: dict[str, Gate] = {
    "int8": Gate(0.99, 0.99),
    "fp16": Gate(0.999, 0.999),
    ALL_FP16: Gate(0.995, 0.995),
    "bf16": Gate(0.99, 0.99),
}


def gate_for(precision: str, min_agreement: float | None) -> Gate | None:
    """The gate of a precision, or `ALL_FP16`; `min_agreement`, where given, replaces both of its numbers.

    None for fp32.
    """
    if precision == "fp32":
        return None
    return GATES[precision] if min_agreement is None else Gate(min_agreement, min_agreement)


class Calibrated(Strict):
    """Images that a bucket's activation ranges come from; `forced` of them are others', for want of its own."""

    images: Number
    forced: Number


class Lowering(Strict):
    """How a bundle below fp32 was made: what `verify` needs to know, and what a reader wants to."""

    flavor: Literal["cpu", "trt"] | None = None  # int8: the runtime it was made for
    calibration: Literal["minmax", "percentile", "entropy"] | None = None  # int8: how ranges were chosen
    images: Number = 0  # that ranges or probes come from
    buckets: dict[str, Calibrated] = Field(
        default_factory=dict
    )  # int8: the images behind each part's ranges; `stem` is one
    smoothing: dict[str, tuple[int, ...]] = Field(
        default_factory=dict
    )  # channels by name -> log2 of what they are divided by
    lifted: tuple[str, ...] = ()  # int8: layers that stay in float
    weight_bits: WeightBits | None = None  # int8: 7 where int8 kernels saturate; None, in older manifests: 8
    instruction_set: str | None = None  # int8: of the processor that it was made and judged on
    facts: dict[str, Any] = Field(
        default_factory=dict
    )  # search, speed, largest activations, remarks: nothing depends on them
    accepted: tuple[str, ...] = ()  # what it misses and was let through with

    @property
    def largest_weight(self) -> int:
        """Magnitude of the largest integer of a channel: 127, with 7 bits 64."""
        return LARGEST_WEIGHT[self.weight_bits or 8]
