"""Learned routing against random selection of as many tokens, on the same images. No torch.

At each step the router's values are shuffled among the candidate patch tokens, so the same number of tokens runs and
the MACs are equal; only which tokens run is left to chance. CLS is routed as learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from morvit_deploy.model.answers.accuracy import Interval, paired_interval, wilson
from morvit_deploy.report import share


@dataclass(frozen=True)
class Baseline:
    """The predictions under random selection, beside those under learned routing."""

    images: int
    agreement: float  # fraction of images with the class of learned routing
    top1: float | None = None  # of random selection; None unless every image has a label
    learned_top1: float | None = None
    won: int = 0  # images that only learned routing classifies correctly
    lost: int = 0  # images that only random selection classifies correctly

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the gain in top-1; without labels, of the agreement."""
        if self.top1 is None:
            return wilson(self.agreement, self.images)
        return paired_interval(self.won, self.lost, self.images)

    @property
    def gain(self) -> float | None:
        """Top-1 of learned routing less that of random selection."""
        return None if self.top1 is None or self.learned_top1 is None else self.learned_top1 - self.top1

    def __str__(self) -> str:
        if self.top1 is None or self.learned_top1 is None or self.gain is None:
            return f"random selection gives the same class on {share(self.agreement)} ({self.interval})"
        low, high = (f"{100 * bound:+.1f}" for bound in self.interval)
        return (
            f"top-1 is {share(self.learned_top1)} learned and {share(self.top1)} random: "
            f"{100 * self.gain:+.1f} points ({low} to {high})"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a report."""
        return asdict(self) | {"interval": list(self.interval), "gain": self.gain}


def compare(learned: Sequence[int], at_random: Sequence[int], labels: Sequence[int | None]) -> Baseline:
    """Compare predictions (n,) image by image; top-1 and its gain need a label for every image."""
    pairs = list(zip(learned, at_random, labels, strict=True))
    images = len(pairs)
    agreement = sum(a == b for a, b, _ in pairs) / images
    if any(label is None for _, _, label in pairs):
        return Baseline(images, agreement)
    won = sum(a == label != b for a, b, label in pairs)
    lost = sum(b == label != a for a, b, label in pairs)
    right = sum(a == label for a, _, label in pairs)
    return Baseline(images, agreement, (right - won + lost) / images, right / images, won, lost)
