"""How much accuracy depends on the routed depth: the slope from the trained budget to a smaller one. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from morvit_deploy.model.answers.accuracy import AGREEMENT, Interval, paired_interval, wilson

# images; with fewer, chance explains large differences between images and between budgets
ENOUGH = 30
# loss of top-1 that counts as none: the difference within which two operating points are said to be equally accurate
NEGLIGIBLE = 0.005
# loss of agreement that counts as none: a plan without labels must keep the rest
UNLIKE = 1 - AGREEMENT
MOST_IMAGES = 1_000_000  # a calibration of more is not suggested

Effect = Literal["matters", "does not matter", "unknown"]


@dataclass(frozen=True)
class DepthEffect:
    """Accuracy at the trained budget and at a smaller one, on the same images.

    A budget is the number of tokens that run the routed steps. Without labels, accuracy is the top-1 agreement with
    the trained model.
    """

    images: int
    of: Literal["top-1", "agreement"]
    scale: float  # of the smaller budget, relative to the trained one
    trained: float
    smaller: float
    changed: float  # fraction of images that are right at one budget only, or an upper bound of it

    @property
    def loss(self) -> float:
        """Accuracy that the smaller budget loses."""
        return self.trained - self.smaller

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the loss: of a paired difference or, without labels, Wilson's."""
        if self.of == "agreement":
            low, high = wilson(self.smaller, self.images)
            return Interval(1 - high, 1 - low)
        won, lost = ((self.changed + sign * self.loss) * self.images / 2 for sign in (1, -1))
        return paired_interval(won, lost, self.images)

    @property
    def slope(self) -> float:
        """Accuracy lost for each halving of the budget."""
        return self.loss / self._halvings

    @property
    def slope_interval(self) -> Interval:
        """The 95 % interval of the slope."""
        low, high = self.interval
        return Interval(low / self._halvings, high / self._halvings)

    @property
    def effect(self) -> Effect:
        """Whether the loss is surely more than nothing, surely negligible, or neither."""
        low, high = self.interval
        if self.images < ENOUGH:
            return "unknown"
        nothing, negligible = (UNLIKE, UNLIKE) if self.of == "agreement" else (0.0, NEGLIGIBLE)
        if high <= negligible:
            return "does not matter"
        return "matters" if low > nothing else "unknown"

    @property
    def images_needed(self) -> int | None:
        """About how many images would tell if they behaved like these; None above MOST_IMAGES.

        The number is doubled until the effect is known.
        """
        number = self.images
        while number <= MOST_IMAGES:
            if replace(self, images=number).effect != "unknown":
                return number
            number *= 2
        return None

    @property
    def _halvings(self) -> float:
        return -math.log2(self.scale)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a report."""
        return asdict(self) | {
            "loss": self.loss,
            "interval": list(self.interval),
            "slope": self.slope,
            "slope_interval": list(self.slope_interval),
            "effect": self.effect,
            "images_needed": self.images_needed,
        }


def depth_effect(
    scale: float, same: Sequence[bool], pairs: Sequence[tuple[bool, bool]] | None = None
) -> DepthEffect:
    """Compare a budget `scale` times the trained one with it, image by image.

    same (n,): whether the decisions are equal. pairs (n, 2): whether the trained and the smaller budget are right;
    None unless every image has a label and the head returns one class.
    """
    images = len(same)
    if pairs is None:
        agreement = sum(same) / images
        return DepthEffect(images, "agreement", scale, 1.0, agreement, 1 - agreement)
    trained, smaller = (sum(column) / images for column in zip(*pairs, strict=True))
    changed = sum(a != b for a, b in pairs) / images
    return DepthEffect(images, "top-1", scale, trained, smaller, changed)
