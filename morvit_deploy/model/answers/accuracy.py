"""How much of the trained model's accuracy a plan keeps, as far as a number of images can show. No torch.

A share of images is uncertain. Its 95 % interval is Wilson's score interval, which also holds near 0 and 1 and for
few images (E. B. Wilson, JASA 22, 1927).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeGuard

from morvit_deploy.errors import AccuracyError
from morvit_deploy.report import numbered, share

Z = 1.96  # standard deviations: 95 %
AGREEMENT = 0.99  # that a plan should keep without labels; int8 bundles have the same gate
RUINED = 0.9  # fraction of its accuracy below which a model is ruined
RECORDED = ("images", "top1_agreement", "top1", "trained_top1")  # keys of a plan's `calibration`


class Interval(NamedTuple):
    """Bounds of a share, 0 to 1."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.low:.1f}–{100 * self.high:.1f} %"


def wilson(part: float, images: int) -> Interval:
    """Return the 95 % interval of a share that was measured on this many images."""
    spread = Z**2 / images
    middle, scale = part + spread / 2, 1 + spread
    half = Z * math.sqrt(part * (1 - part) / images + spread / (4 * images))
    return Interval(max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def paired_interval(won: float, lost: float, images: int) -> Interval:
    """Return the 95 % interval of (won - lost) / images, a difference of paired shares.

    Half an image is added to each of the four counts (A. Agresti and Y. Min, Statistics in Medicine 24, 2005).
    """
    total, difference = images + 2, won - lost
    half = Z * math.sqrt(won + lost + 1 - difference**2 / total) / total
    middle = difference / total
    return Interval(middle - half, middle + half)


@dataclass(frozen=True)
class Kept:
    """A plan's accuracy on some images, and that of the trained model on the same images."""

    images: int
    agreement: float  # top-1 agreement with the trained model
    top1: float | None = None  # None unless every image has a label
    trained_top1: float | None = None
    expected: float = 1.0  # agreement without ruin

    @classmethod
    def recorded(cls, record: Mapping[str, Any] | None) -> Kept | None:
        """Return what `calibrate` recorded in a plan; None if the plan has no such record."""
        images, agreement, top1, trained_top1 = ((record or {}).get(name) for name in RECORDED)
        if not isinstance(images, int) or images < 1 or not _is_share(agreement):
            return None
        labelled = _is_share(top1) and _is_share(trained_top1)
        return cls(images, agreement, *((top1, trained_top1) if labelled else ()))

    @property
    def accuracy(self) -> float:
        """Top-1 if every image has a label, otherwise agreement with the trained model."""
        return self.agreement if self.top1 is None else self.top1

    @property
    def ruined(self) -> bool:
        """Whether even the upper end of the interval is below RUINED of what the trained model has."""
        return wilson(self.accuracy, self.images).high < RUINED * self.reference

    @property
    def reference(self) -> float:
        """The accuracy that the plan is held against."""
        return self.expected if self.top1 is None or self.trained_top1 is None else self.trained_top1

    def __str__(self) -> str:
        what = "top-1 agreement with the trained model" if self.top1 is None else "top-1"
        against = "" if self.top1 is None else f" against {share(self.reference)} of the trained model"
        interval = wilson(self.accuracy, self.images)
        where = f"95 % interval {interval}, {numbered(self.images, 'image')}"
        return f"{what} is {share(self.accuracy)}{against} ({where})"


def ruin_of(kept: Kept | None, *, allow_worse: bool, remedy: str) -> list[str]:
    """Return what --allow-worse let through, if anything; AccuracyError for ruin without it."""
    if kept is None or not kept.ruined:
        return []
    if not allow_worse:
        raise AccuracyError(
            f"the plan ruins the model: {kept}; expected at least {share(RUINED * kept.reference)}. {remedy}, or "
            "accept it with --allow-worse"
        )
    return [f"let through by --allow-worse: {kept}"]


@dataclass(frozen=True)
class Floor:
    """The accuracy that a plan should keep on the calibration images."""

    images: int
    of: str  # "top-1" or "agreement"
    at_least: float
    interval: Interval | None = None  # of the trained model's accuracy; None if the user has set the floor
    trained_top1: float | None = None

    @classmethod
    def on(cls, images: int, trained_top1: float | None, min_agreement: float | None = None) -> Floor:
        """Return the floor on this many images: the lower end of the trained model's interval by default.

        With labels it is the interval of top-1. Without, it is that of an agreement of AGREEMENT. `min_agreement`
        replaces both by an agreement.
        """
        if min_agreement is not None:
            return cls(images, "agreement", min_agreement)
        what = "agreement" if trained_top1 is None else "top-1"
        interval = wilson(AGREEMENT if trained_top1 is None else trained_top1, images)
        return cls(images, what, interval.low, interval, trained_top1)

    def keeps(self, agreement: float, top1: float | None) -> bool:
        """Whether a plan of this accuracy keeps that of the trained model.

        With labels the loss must also be one that chance explains, image by image: of d images whose class changes,
        as many are lost as gained, give or take 1.96·√d (McNemar's test). This is stricter where top-1 is low.
        """
        if self.of == "agreement" or top1 is None or self.trained_top1 is None:
            return agreement >= self.at_least
        lost, changed = self.trained_top1 - top1, 1 - agreement
        return top1 >= self.at_least and lost <= Z * math.sqrt(changed / self.images) + 1e-12

    def as_dict(self) -> dict[str, Any]:
        """For a report."""
        interval = None if self.interval is None else list(self.interval)
        known = {"of": self.of, "at_least": self.at_least, "interval": interval}
        return known | {"images": self.images, "one_image": 1 / self.images}


def _is_share(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and 0 <= value <= 1
