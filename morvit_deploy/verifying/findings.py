"""What a verification finds: gaps between logits, changed routing, and what each bucket keeps. No torch."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MARGIN = 1e-4  # router logits closer than this may swap by float32 round-off: such images are not compared
MARGIN_EDGES = (1e-4, 1e-3, 1e-2, 1e-1)  # of the histogram


@dataclass(frozen=True)
class Gap:
    """How far two sides' logits are apart over the compared images."""

    max_abs: float
    tolerance: float  # the largest difference allowed, already scaled
    top1_agreement: float

    @property
    def passed(self) -> bool:
        """Within tolerance, and every compared image gets the same class; without a tolerance, only measured."""
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
    """How the plan's model routes otherwise than the trained one, over the images compared; NumPy counts only."""

    alike: NDArray[np.int64]  # (steps,) routed tokens that both run, or both do not run, a step
    tokens: int  # routed tokens compared at each step
    counts: NDArray[np.int64]  # (steps,) tokens that ran each step in the plan's model
    margins: list[float]  # the images' routing margins in the plan's model

    @classmethod
    def empty(cls, steps: int) -> RoutingChange:
        """Before the first image."""
        return cls(np.zeros(steps, dtype=np.int64), 0, np.zeros(steps, dtype=np.int64), [])

    def add(self, trained: Any, planned: Any) -> None:
        """Two `Outcome`s of the same images."""
        one, other = (outcome.runs.numpy() for outcome in (trained, planned))  # (steps, images, tokens)
        self.alike += (one == other).sum(axis=(1, 2))
        self.counts += other.sum(axis=(1, 2))
        self.tokens += one.shape[1] * one.shape[2]
        self.margins += [trace.margin for trace in planned.traces]

    @property
    def agreement(self) -> list[float]:
        """Share of routed tokens treated alike at each step."""
        return [int(same) / self.tokens if self.tokens else 1.0 for same in self.alike]

    @property
    def kept_share(self) -> list[float]:
        """Mean share of routed tokens that run each step in the plan's model."""
        return [int(count) / self.tokens if self.tokens else 1.0 for count in self.counts]

    @property
    def margin_histogram(self) -> dict[str, int]:
        """Images by routing margin, in router logits."""
        named = [f"<{MARGIN_EDGES[0]:g}", *(f"≥{edge:g}" for edge in MARGIN_EDGES)]
        places = [bisect_right(MARGIN_EDGES, margin) for margin in self.margins]
        return {name: places.count(place) for place, name in enumerate(named)}


@dataclass(frozen=True)
class BucketSeen:
    """What one bucket was tried with."""

    name: str
    served: int  # images that the bundle chose it for
    fitting: int  # images that need no more than it holds
    judged: int  # images run in it and compared; where they need more, all sides keep the highest logits
    max_abs: float  # of its conversion gap
    wrong_overflow: int  # compared images whose overflow flag is wrong
    wrong_depth: int = 0  # compared images with a wrong depth, where the bundle returns depths

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return asdict(self) | {"max_abs": finite(self.max_abs)}


@dataclass(frozen=True)
class Dispatched:
    """The bundle as a user runs it, against the plan's model: it chooses the bucket of each image."""

    gap: Gap
    overflowed: int  # images whose predicted bucket was too small, so that `full` was run too
    misdirected: int  # compared images served by another bucket, or with another overflow, than the plan says

    @property
    def passed(self) -> bool:
        """Logits are those of the plan's model, and come from the buckets it names."""
        return self.gap.passed and not self.misdirected

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {**self.gap.as_dict(), "overflowed": self.overflowed, "misdirected": self.misdirected}


@dataclass(frozen=True)
class Fidelity:
    """What one bucket below fp32 keeps of its static graph in float64, over every image compared."""

    bucket: str
    images: int
    snr_db: float  # of the logits
    token_agreement: list[
        float
    ]  # part of all patch tokens that run, or do not run, each step as the reference says
    flips: list[float]  # of images that change their class: how far the reference's two best logits are apart
    decisions: list[list[float]]  # the same of router decisions, in router logits, for each step

    def as_dict(self) -> dict[str, Any]:
        """For reports: counts, medians and the largest."""
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
    """JSON has no infinity and no NaN: null stands for a number that is not one."""
    return value if value is not None and math.isfinite(value) else None
