"""Has routing degenerated? Assessed from token depths and router logits alone (paper §3.3, Figure 5). No torch.

With a nested schedule every image has the same histogram of depths whatever the router does, so the histogram is
one of three things that are looked at: it, how depth differs between images, and how far apart router logits are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Depth = NDArray[np.integer[Any]]  # (n, N): images by patch tokens

UNIFORM_SHARE = 0.95  # of tokens at one depth: the paper's Figure 5 shows "nearly all"
BLIND_SHARE = (
    0.05  # of the depths' variance lies between images: a router that reads content has tens of percent
)
BLIND_IMAGES = 4  # different ones; over fewer, chance makes maps alike
UNDECIDED_SPREAD = (
    0.05  # standard deviation of router logits: sigmoid gates then differ by 0.01, and 8 bits reorder them
)


@dataclass(frozen=True)
class Reason:
    """One way in which routing has degenerated: what was measured, what is expected, what to do."""

    kind: Literal["uniform", "blind", "undecided"]
    measured: str
    expected: str
    advice: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.measured}; expected {self.expected}. {self.advice}"


@dataclass(frozen=True)
class Assessment:
    """The measurements, and a reason for each that is out of bounds."""

    images: int
    common_depth: int
    common_share: float  # of tokens that have the most common depth
    image_share: float | None  # of the variance that lies between images; None when it cannot be told
    spread: tuple[float | None, ...] | None  # of router logits at each step; None where nothing is decided
    reasons: tuple[Reason, ...]

    @property
    def degenerate(self) -> bool:
        """Does adaptivity exist in name only?"""
        return bool(self.reasons)

    @property
    def warning(self) -> str:
        """A paragraph for people; empty when routing is healthy."""
        if not self.reasons:
            return ""
        return "routing has degenerated\n" + "\n".join(f"  - {reason}" for reason in self.reasons)

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {"degenerate": self.degenerate, **asdict(self)}


def assess(
    depth: Depth,
    num_steps: int,
    spread: Sequence[float | None] | None = None,
    capacity: Sequence[int] | None = None,
) -> Assessment:
    """Assess depths (n, N) of n different images that could be up to `num_steps`.

    spread: standard deviation of the router logits at each step, within an image, mean over images; for
    depths chosen up front over a token's logits. capacity: the schedule, where there is one.
    """
    values, counts = np.unique(depth, return_counts=True)
    common_depth, common_share = int(values[counts.argmax()]), float(counts.max() / depth.size)
    image_share = between_images(depth)
    found = (
        _uniform(common_depth, common_share, num_steps, capacity),
        _blind(len(depth), image_share),
        _undecided(spread or ()),
    )
    return Assessment(
        images=len(depth),
        common_depth=common_depth,
        common_share=common_share,
        image_share=image_share,
        spread=None if spread is None else tuple(spread),
        reasons=tuple(reason for reason in found if reason),
    )


def between_images(depth: Depth) -> float | None:
    """Share of the variance of depth (n, N) that is between images at one place: 0 for a map that never changes.

    None when there are too few images, or when all depths are equal.
    """
    total = depth.var()
    if len(depth) < BLIND_IMAGES or total == 0:
        return None
    return float(depth.var(axis=0).mean() / total)


def _uniform(depth: int, share: float, num_steps: int, capacity: Sequence[int] | None) -> Reason | None:
    if share < UNIFORM_SHARE:
        return None
    if capacity is None:
        advice = (
            "The model works as one of fixed depth: train with a balancing loss over depths and a z-loss on router "
            "logits, or export it without routing."
        )
    else:
        advice = (
            f"The capacity {list(capacity)} fixes this for every image: train with capacities that fall from step "
            "to step and leave each step a fair share of tokens."
        )
    return Reason(
        "uniform",
        measured=f"{share:.1%} of patch tokens have depth {depth} of {num_steps}",
        expected=f"less than {UNIFORM_SHARE:.0%} at any one depth",
        advice=advice,
    )


def _blind(images: int, image_share: float | None) -> Reason | None:
    if image_share is None or image_share >= BLIND_SHARE:
        return None
    return Reason(
        "blind",
        measured=f"{image_share:.1%} of the variance of depth is between images, over {images} images; the rest "
        "is a map of places that never changes",
        expected=f"at least {BLIND_SHARE:.0%}",
        advice="The router follows the position embedding and not the picture: give the sampling loss more weight "
        "(paper §3.4), or route after a block that has seen the image.",
    )


def _undecided(spread: Sequence[float | None]) -> Reason | None:
    low = [
        (step, value)
        for step, value in enumerate(spread, start=1)
        if value is not None and value < UNDECIDED_SPREAD
    ]
    if not low:
        return None
    steps = ", ".join(f"{value:.3g} at step {step}" for step, value in low)
    return Reason(
        "undecided",
        measured=f"router logits have a standard deviation of {steps}",
        expected=f"at least {UNDECIDED_SPREAD}",
        advice="The choice between tokens is close to chance and will not survive lower precision: give the "
        "z-loss less weight, or train the router longer (random weights look like this).",
    )
