"""How a bundle below fp32 was made. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from morvit_deploy.model.choices import Int8Flavor, Method
from morvit_deploy.model.config import Strict

Number = Annotated[int, Field(ge=0)]
WeightBits = Literal[7, 8]
LARGEST_WEIGHT: dict[int, int] = {7: 64, 8: 127}  # int8 weights are symmetric


class Calibrated(Strict):
    """Images that a bucket's activation ranges come from; `forced` of them are others', for want of its own."""

    images: Number
    forced: Number


class Lowering(Strict):
    """How a bundle below fp32 was made: what `verify` needs to know, and what a reader wants to."""

    flavor: Int8Flavor | None = None  # int8: the runtime it was made for
    calibration: Method | None = None  # int8: how ranges were chosen
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
