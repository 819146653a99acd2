"""The difference between the reference model's logits and those of the source's own model. No torch."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field

from morvit_deploy.errors import listed
from morvit_deploy.strict_fields import Count, Strict

# Largest difference of a logit, relative to half the range of the source's logits.
# float32: round-off of a model that ran in float32. 12 layers make 1e-6; `gelu` read as `gelu_tanh` makes 3e-5.
FLOAT_TOLERANCE = 2e-5
# float16: a model that ran in half precision, or logits that were stored in it. 12 layers make 1.5e-3.
HALF_TOLERANCE = 1e-2

NOT_CHECKED = "not checked against the source's own outputs; give --reference FILE.npz"


class SourceGap(Strict):
    """What the comparison with the source's own outputs found; `convert` and `export` record it."""

    sha256: str  # of the file
    checkpoint: str  # sha256 of the weights and settings that were compared
    given: Literal["images", "inputs"]  # images: the normalization was checked too
    dtype: str  # of the source's logits
    total: Count  # images in the file
    compared: Annotated[int, Field(ge=0)]  # images
    ambiguous: Annotated[int, Field(ge=0)]  # images whose routing margin is too small to compare them
    max_abs: float
    tolerance: float  # largest allowed difference of a logit
    top1_agreement: float  # informative: a difference within tolerance changes no class with a clear margin
    likely: tuple[str, ...] = ()  # causes of a difference that is too large, the most likely first

    @property
    def passed(self) -> bool:
        """Whether enough images could be compared and every logit is within tolerance."""
        return self.compared > 0 and self.max_abs <= self.tolerance

    @property
    def summary(self) -> str:
        """One line: images, largest difference, tolerance and top-1 agreement."""
        images = f"{self.compared} of {self.total} images"
        if not self.compared:
            return f"{images} compared: the routing margin of the others is too small"
        return (
            f"{images}, max |Δlogit| {self.max_abs:.3g} (at most {self.tolerance:.3g}), "
            f"top-1 agreement {self.top1_agreement:.1%}"
        )

    @property
    def failure(self) -> str:
        """The message of a difference that is too large, with its likely causes."""
        text = f"the checkpoint as it was read does not return the source's own logits: {self.summary}"
        return f"{text}; likely causes, in order:\n{listed(self.likely)}" if self.likely else text

    def as_dict(self) -> dict[str, Any]:
        """For reports: JSON has no infinity."""
        largest = self.max_abs if math.isfinite(self.max_abs) else None
        return self.model_dump(mode="json") | {"max_abs": largest, "passed": self.passed}


def described(gap: SourceGap | None, before: SourceGap | None = None) -> str:
    """Return what a report says of the reading of a checkpoint; `before` is the gap that `convert` recorded."""
    if gap is not None:
        return f"checked against the source's own outputs: {gap.summary}"
    return NOT_CHECKED if before is None else f"checked by `convert`: {before.summary}"
