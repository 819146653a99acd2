"""The agreement that a bundle below fp32 must reach. No torch, no pydantic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

# A share of N decisions scatters around the bundle's true one. A gate is missed if a bundle that just meets it would
# have as many misses in fewer than one of 100 samples.
SIGNIFICANCE = 0.01
# Enough images: a bundle whose misses are halfway between the gate and always passes less than once in 1000 times.
OVERSIGHT = 0.001
MOST_NEEDED = 32  # images, the default of `export`: for gates so low that no number of images would tell much


@dataclass(frozen=True)
class Gate:
    """The minimum agreement with the float64 reference."""

    tokens: float  # fraction of patch tokens routed as in the reference, at each step
    top1: float  # fraction of images with the class of the reference
    snr_db: float = (
        0.0  # of an image's logits, median over the images; 0 dB: the error is as large as the logits
    )

    def allowed_flips(self, images: int) -> int:
        """Return how many images may change their class without the gate being missed."""
        return allowed_misses(self.top1, images)

    @property
    def images_needed(self) -> int:
        """The number of images from which the gate can be judged."""
        return max(images_needed(self.tokens), images_needed(self.top1))

    def accepting(self, share: float) -> Gate:
        """Return the gate with `share` for tokens and classes, as a user asks for it.

        The error of the logits may then have as much of their power as decisions may differ, if that is more.
        """
        power_db = abs(10 * math.log10(1 - share)) if share < 1 else math.inf
        return Gate(share, share, min(self.snr_db, power_db))


@cache
def allowed_misses(share: float, decisions: int) -> int:
    """Return the largest number of misses that is not significant if at least `share` of them must agree.

    The misses of a bundle that just meets the gate are binomial. The decisions of one image are not independent,
    so that the true scatter is larger: the number errs on the strict side.
    """
    rate, misses = 1 - share, 0
    at_least = 1.0  # probability of `misses` or more
    while misses < decisions:
        at_least -= _probability(misses, decisions, rate)
        if at_least < SIGNIFICANCE:
            break
        misses += 1
    return misses


@cache
def images_needed(share: float) -> int:
    """Return the number of images from which a gate of `share` tells a sound bundle from a wrong one."""
    if share == 0:
        return 1  # every bundle meets it
    wrong = 1 - share / 2
    images = MOST_NEEDED
    while images > 1:
        fewer = images - 1
        passes = sum(_probability(misses, fewer, wrong) for misses in range(allowed_misses(share, fewer) + 1))
        if passes > OVERSIGHT:
            break
        images = fewer
    return images


def _probability(misses: int, decisions: int, rate: float) -> float:
    """Return the binomial probability of exactly `misses`."""
    if rate in (0.0, 1.0):
        return float(misses == rate * decisions)
    ways = math.lgamma(decisions + 1) - math.lgamma(misses + 1) - math.lgamma(decisions - misses + 1)
    return math.exp(ways + misses * math.log(rate) + (decisions - misses) * math.log1p(-rate))


# int8: on the digits model, a lower token agreement shows in top-1.
# fp16: rounds by 5e-4 of a value, which flips only decisions with a smaller margin.
# bf16: rounds by eight times that, 4e-3 of a value, as much as one int8 step of a full range.
# Core ML's fp16: the Neural Engine has no wider arithmetic, so the residual stream and the routers are rounded too;
# other targets keep both in fp32.
# SNR: the lowest median of the trained examples on 32 pictures, with room for an error 5 to 6 times as large:
# fp16 70.7 dB, fp16 throughout 66.6, bf16 48.4, int8 38.5 (7 bits, AVX2) and 39.3 (8 bits, sums in 32 bits).
ALL_FP16 = "fp16 throughout"
GATES: dict[str, Gate] = {
    "int8": Gate(0.99, 0.99, 24.0),
    "fp16": Gate(0.999, 0.999, 55.0),
    ALL_FP16: Gate(0.995, 0.995, 52.0),
    "bf16": Gate(0.99, 0.99, 33.0),
    "w8": Gate(0.99, 0.99, 24.0),  # of int8: 42 dB on the trained examples
    "w4": Gate(0.99, 0.99, 24.0),  # of int8
}


def gate_for(precision: str, min_agreement: float | None) -> Gate | None:
    """Return the gate of a precision or of `ALL_FP16`, None for fp32; `min_agreement` replaces both fractions."""
    if precision == "fp32":
        return None
    return GATES[precision] if min_agreement is None else GATES[precision].accepting(min_agreement)
