"""Detection of degenerate routing from token depths and router logits (paper §3.3, Figure 5). No torch.

With a nested schedule every image has the same histogram of depths, whatever the router does. Therefore four
properties are checked: the histogram, how depth varies between images, the spread of router logits, and whether the
choice of tokens is worth more than a random one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import listed
from morvit_deploy.inspecting.baseline import Baseline
from morvit_deploy.inspecting.checks import (
    BLIND_IMAGES,
    SAME_SHARE,
    Check,
    Kind,
    checks_of,
    outcome_of,
    summary,
)
from morvit_deploy.report import share

Depth = NDArray[np.integer[Any]]  # (n, N): images by patch tokens

# fraction of tokens at one depth; the paper's Figure 5 shows "nearly all"
UNIFORM_SHARE = 0.95
# fraction of the depths' variance between images; for a router that depends on content it is tens of percent
BLIND_SHARE = 0.05
# standard deviation of router logits; sigmoid scores then differ by 0.01, and int8 reorders them
UNDECIDED_SPREAD = 0.05


@dataclass(frozen=True)
class Reason:
    """A way in which routing has degenerated: measured value, expected value, advice."""

    kind: Kind
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
    common_share: float  # fraction of tokens at the most common depth
    image_share: float | None  # fraction of the variance of depth between images; None if unknown
    spread: tuple[float | None, ...] | None  # of router logits at each step; None at a step without selection
    reasons: tuple[Reason, ...]
    checks: tuple[Check, ...]  # one for each kind of reason

    @property
    def summary(self) -> str:
        """What failed, what passed and what could not be judged."""
        return summary(self.checks)

    @property
    def degenerate(self) -> bool:
        """Whether routing has degenerated."""
        return bool(self.reasons)

    @property
    def warning(self) -> str:
        """A text for the user; empty if no check failed."""
        if not self.reasons:
            return ""
        return "routing has degenerated\n" + listed([str(reason) for reason in self.reasons])

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a report."""
        return {"degenerate": self.degenerate, **asdict(self)}


def assess(
    depth: Depth,
    num_steps: int,
    spread: Sequence[float | None] | None = None,
    capacity: Sequence[int] | None = None,
    baseline: Baseline | None = None,
) -> Assessment:
    """Assess depths (n, N) of n different images, of up to `num_steps`.

    spread is the standard deviation of an image's router logits at each step (of a token's logits if depths are
    chosen up front), averaged over images. capacity is the schedule, if there is one. baseline compares predictions
    with those of random selection.
    """
    values, counts = np.unique(depth, return_counts=True)
    common_depth, common_share = int(values[counts.argmax()]), float(counts.max() / depth.size)
    image_share = between_images(depth)
    found = (
        _uniform(common_depth, common_share, num_steps, capacity),
        _blind(len(depth), image_share),
        _undecided(spread or ()),
        _random(baseline),
    )
    reasons = tuple(reason for reason in found if reason)
    failed = {reason.kind for reason in reasons}
    common = f"{share(common_share)} of patch tokens have depth {common_depth}"
    return Assessment(
        images=len(depth),
        common_depth=common_depth,
        common_share=common_share,
        image_share=image_share,
        spread=None if spread is None else tuple(spread),
        reasons=reasons,
        checks=checks_of(failed, common, image_share, spread, baseline),
    )


def between_images(depth: Depth) -> float | None:
    """Return the fraction of the variance of depth (n, N) between images at the same position.

    It is 0 if all images have the same map. Returns None if there are too few images or all depths are equal.
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
            "The model behaves like one of fixed depth: train with a balancing loss over depths and a z-loss on "
            "router logits, or export it without routing."
        )
    else:
        advice = (
            f"The capacity {list(capacity)} causes this for every image: train with capacities that decrease "
            "gradually from step to step."
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
        measured=f"{image_share:.1%} of the variance of depth over {images} images is between images; the rest is a "
        "constant map of positions",
        expected=f"at least {BLIND_SHARE:.0%}",
        advice="The router depends on the position embedding and not on the image: increase the weight of the "
        "sampling loss (paper §3.4), or route after a block with attention.",
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
        advice="The selection is close to random and changes in lower precision: decrease the weight of the z-loss, "
        "or train the router longer (untrained weights look like this).",
    )


def _random(baseline: Baseline | None) -> Reason | None:
    """With labels, the gain in top-1 must be more than chance explains; without, some classes must change."""
    if baseline is None or outcome_of(baseline) != "FAILED":
        return None
    expected = f"surely less than {SAME_SHARE:.0%}" if baseline.gain is None else "a gain surely above 0"
    return Reason(
        "random",
        measured=f"{baseline} on {baseline.images} images",
        expected=expected,
        advice="At the same MACs the routers choose no better than chance: train them longer, or look for a bug in "
        "how their scores were trained.",
    )
