"""How a bundle below fp32 was quantised or converted. No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from morvit_deploy.model.choices import Int8Flavor, Method
from morvit_deploy.strict_fields import Strict

Number = Annotated[int, Field(ge=0)]
WeightBits = Literal[7, 8]
# weight bits -> largest magnitude; int8 weights are symmetric
LARGEST_WEIGHT: dict[int, int] = {7: 64, 8: 127}


class Calibrated(Strict):
    """Number of images behind a bucket's activation ranges; `forced` of them would run in another bucket."""

    images: Number
    forced: Number


class Lowering(Strict):
    """How a bundle below fp32 was made, for `verify` and for the reader of a manifest."""

    flavor: Int8Flavor | None = None  # int8: the runtime it was made for
    calibration: Method | None = None  # int8: how activation ranges were chosen
    images: Number = 0  # calibration images
    # int8: the images behind the ranges of each bucket, and of the `stem`
    buckets: dict[str, Calibrated] = Field(default_factory=dict)
    # group of channels -> log2 of the factor that each channel is divided by
    smoothing: dict[str, tuple[int, ...]] = Field(default_factory=dict)
    lifted: tuple[str, ...] = ()  # int8: layers that stay in float
    # int8: each rounded activation -> scale and zero point; empty in older manifests
    activations: dict[str, tuple[float, int]] = Field(default_factory=dict)
    weight_bits: WeightBits | None = None  # int8: 7 if int8 kernels saturate; None, in older manifests: 8
    instruction_set: str | None = None  # int8: of the processor that it was made and verified on
    # informative only: layer search, speed, largest activations, remarks
    facts: dict[str, Any] = Field(default_factory=dict)
    accepted: tuple[str, ...] = ()  # gates it missed and was exported with anyway

    @property
    def largest_weight(self) -> int:
        """Largest magnitude of a quantised weight: 127, or 64 with 7 bits."""
        return LARGEST_WEIGHT[self.weight_bits or 8]
