"""What a bundle below fp32 must keep. No torch, no pydantic."""

from __future__ import annotations

from dataclasses import dataclass


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
