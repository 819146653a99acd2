"""The findings of a verification: gaps between logits, changes of routing, and results per bucket. No torch."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARGIN = 1e-4  # images with a smaller routing margin are not compared: float32 round-off may change their decisions
MARGIN_EDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the histogram of routing margins


@dataclass(frozen=True)
class Gap:
    """The difference between the logits of two models over the compared images."""

    max_abs: float
    tolerance: float  # largest allowed difference, scaled; infinite if the gap is only measured
    top1_agreement: float

    @property
    def passed(self) -> bool:
        """Whether the difference is within tolerance and all classes are equal; true without a tolerance."""
        if math.isinf(self.tolerance):
            return True
        return bool(self.max_abs <= self.tolerance and self.top1_agreement == 1.0)

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "max_abs": finite(self.max_abs),
            "tolerance": finite(self.tolerance),
            "top1_agreement": self.top1_agreement,
            "passed": self.passed,
        }


@dataclass
class RoutingChange:
    """The differences in routing between the trained model and the plan's model."""

    alike: NDArray[np.int64]  # (steps,) routed tokens with equal decisions
    tokens: int  # routed tokens compared at each step
    counts: NDArray[np.int64]  # (steps,) tokens that run each step in the plan's model
    margins: list[float]  # routing margin of each image in the plan's model

    @classmethod
    def empty(cls, steps: int) -> RoutingChange:
        """Return the initial value, without images."""
        return cls(np.zeros(steps, dtype=np.int64), 0, np.zeros(steps, dtype=np.int64), [])

    def add(self, trained: Any, planned: Any) -> None:
        """Add the `Outcome`s of both models for the same images."""
        one, other = (outcome.runs.numpy() for outcome in (trained, planned))  # (steps, images, tokens)
        self.alike += (one == other).sum(axis=(1, 2))
        self.counts += other.sum(axis=(1, 2))
        self.tokens += one.shape[1] * one.shape[2]
        self.margins += [trace.margin for trace in planned.traces]

    @property
    def agreement(self) -> list[float]:
        """Fraction of routed tokens with equal decisions at each step."""
        return [int(same) / self.tokens if self.tokens else 1.0 for same in self.alike]

    @property
    def kept_share(self) -> list[float]:
        """Fraction of routed tokens that run each step in the plan's model."""
        return [int(count) / self.tokens if self.tokens else 1.0 for count in self.counts]

    @property
    def margin_histogram(self) -> dict[str, int]:
        """Number of images by routing margin, in router logits."""
        named = [f"<{MARGIN_EDGES[0]:g}", *(f"≥{edge:g}" for edge in MARGIN_EDGES)]
        places = [bisect_right(MARGIN_EDGES, margin) for margin in self.margins]
        return {name: places.count(place) for place, name in enumerate(named)}


@dataclass(frozen=True)
class BucketSeen:
    """The images that a bucket was verified with."""

    name: str
    served: int  # images that the bundle ran in it
    fitting: int  # images that fit its capacity
    judged: int  # images compared in it, whether or not they fit
    max_abs: float  # of its conversion gap
    wrong_overflow: int  # compared images whose overflow flag is wrong
    wrong_depth: int = 0  # compared images with a wrong depth, where the bundle returns depths

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self) | {"max_abs": finite(self.max_abs)}


@dataclass(frozen=True)
class Dispatched:
    """The bundle with its own choice of buckets, compared with the plan's model."""

    gap: Gap
    overflowed: int  # images that overflowed their predicted bucket and were run again in `full`
    misdirected: int  # compared images whose bucket or overflow differs from the plan

    @property
    def passed(self) -> bool:
        """Whether logits and buckets are those of the plan's model."""
        return self.gap.passed and not self.misdirected

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {**self.gap.as_dict(), "overflowed": self.overflowed, "misdirected": self.misdirected}


@dataclass(frozen=True)
class Fidelity:
    """The agreement of a bucket below fp32 with its static graph in float64."""

    bucket: str
    images: int
    snr_db: float  # of the logits
    token_agreement: list[float]  # fraction of patch tokens routed as in the reference, at each step
    # for each image that changes its class, the difference of the reference's two best logits
    flips: list[float]
    decisions: list[list[float]]  # for each step, the margins of the router decisions that changed

    def as_dict(self) -> dict[str, Any]:
        """Return counts, medians and maxima for reports."""
        steps = [{"flips": len(step), **_margins(step)} for step in self.decisions]
        known: dict[str, Any] = {"bucket": self.bucket, "images": self.images, "snr_db": finite(self.snr_db)}
        known |= {"token_agreement": self.token_agreement}
        return known | {"class_flips": len(self.flips), **_margins(self.flips), "steps": steps}


def _margins(margins: list[float]) -> dict[str, float | None]:
    return {
        "median_margin": finite(float(np.median(margins)) if margins else None),
        "largest_margin": finite(max(margins, default=None)),
    }


def finite(value: float | None) -> float | None:
    """Return None for infinity and NaN, which JSON does not support."""
    return value if value is not None and math.isfinite(value) else None
