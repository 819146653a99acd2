"""The agreement that a bundle below fp32 must reach. No torch, no pydantic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gate:
    """The minimum agreement with the float64 reference."""

    tokens: float  # fraction of patch tokens routed as in the reference, at each step
    top1: float  # fraction of images with the class of the reference

    def allowed_flips(self, images: int) -> int:
        """Return how many images may change their class: at least one, unless `top1` is 1."""
        return max(1, int((1 - self.top1) * images)) if self.top1 < 1 else 0


# int8: on the digits model, a lower token agreement shows in top-1.
# fp16: rounds by 5e-4 of a value, which flips only decisions with a smaller margin.
# bf16: rounds by eight times that, 4e-3 of a value, as much as one int8 step of a full range.
# Core ML's fp16: the Neural Engine has no wider arithmetic, so the residual stream and the routers are rounded too;
# other targets keep both in fp32.
ALL_FP16 = "fp16 throughout"
GATES: dict[str, Gate] = {
    "int8": Gate(0.99, 0.99),
    "fp16": Gate(0.999, 0.999),
    ALL_FP16: Gate(0.995, 0.995),
    "bf16": Gate(0.99, 0.99),
}


def gate_for(precision: str, min_agreement: float | None) -> Gate | None:
    """Return the gate of a precision or of `ALL_FP16`, None for fp32; `min_agreement` replaces both fractions."""
    if precision == "fp32":
        return None
    return GATES[precision] if min_agreement is None else Gate(min_agreement, min_agreement)
