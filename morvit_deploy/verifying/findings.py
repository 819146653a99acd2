"""The findings of a verification: gaps between logits, changes of routing, and results per bucket. No torch."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# images with a smaller routing margin, relative to the spread of the router logits, are not compared exactly: float32
# round-off may change their decisions
MARGIN = 1e-4
COMPARED_SHARE = 0.5  # of the images, at least; if most are set aside, the others may not be like them
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
    # compared images with a wrong overflow flag or depth, where the bundle returns them; below fp32, other than its
    # own router decisions imply
    wrong_overflow: int
    wrong_depth: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self) | {"max_abs": finite(self.max_abs)}


@dataclass(frozen=True)
class Dispatched:
    """The bundle with its own choice of buckets, compared with the plan's model."""

    gap: Gap
    overflowed: int  # images that overflowed their predicted bucket and were run again in `full`
    misdirected: (
        int  # compared images whose bucket or overflow differs from the plan; below fp32, see `BucketSeen`
    )
    images: int = 0  # compared
    median_snr_db: float = math.inf  # of each image's logits
    misserved: int = 0  # images below fp32 whose logits are not those of their bucket

    @property
    def passed(self) -> bool:
        """Whether logits and buckets are those of the plan's model."""
        return self.gap.passed and not self.misdirected

    @property
    def class_flips(self) -> int:
        """Images that change their class."""
        return round((1 - self.gap.top1_agreement) * self.images)

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        counted = {
            "overflowed": self.overflowed,
            "misdirected": self.misdirected,
            "misserved": self.misserved,
        }
        return {**self.gap.as_dict(), **counted, "median_snr_db": finite(self.median_snr_db)}


@dataclass(frozen=True)
class Edges:
    """Constructed inputs that need exactly the capacity of a bucket, or one token more."""

    wanted: int  # combinations of bucket, step, and capacity or capacity + 1
    reached: int  # those for which an input was found
    compared: int  # inputs, each in one bucket and as dispatched
    wrong: int  # inputs with another bucket, overflow or logits than expected
    unserved: tuple[str, ...] = ()  # buckets that no image was dispatched to, constructed ones included
    example: str = ""  # the first wrong one, in words

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self) | {"unserved": list(self.unserved)}


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
    tokens: int = 0  # decisions compared at each step
    median_snr_db: float = math.inf  # of each image's logits

    def as_dict(self) -> dict[str, Any]:
        """Return counts, medians and maxima for reports."""
        steps = [{"flips": len(step), **_margins(step)} for step in self.decisions]
        known: dict[str, Any] = {"bucket": self.bucket, "images": self.images, "snr_db": finite(self.snr_db)}
        known |= {"median_snr_db": finite(self.median_snr_db), "token_agreement": self.token_agreement}
        return known | {"class_flips": len(self.flips), **_margins(self.flips), "steps": steps}


def _margins(margins: list[float]) -> dict[str, float | None]:
    return {
        "median_margin": finite(float(np.median(margins)) if margins else None),
        "largest_margin": finite(max(margins, default=None)),
    }


def finite(value: float | None) -> float | None:
    """Return None for infinity and NaN, which JSON does not support."""
    return value if value is not None and math.isfinite(value) else None
