"""The checks of routing one by one: passed, failed, or why it could not be judged. No torch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from morvit_deploy.inspecting.baseline import Baseline
from morvit_deploy.model.answers.accuracy import wilson
from morvit_deploy.report import share

BLIND_IMAGES = 4  # minimum number of different images; the maps of fewer may be similar by chance
ENOUGH = 30  # different images for `random`; with fewer, chance explains large differences
# fraction of images that surely have the same class under random selection if the choice of tokens has no effect
SAME_SHARE = 0.95
# images that are classified correctly in one way only: enough to tell, and the fraction that learned routing wins. By
# chance it wins half
CHANGED, WON_SHARE = 10, 2 / 3

Kind = Literal["uniform", "blind", "undecided", "random"]
Outcome = Literal["passed", "FAILED", "not judged"]
PROPERTIES: dict[Kind, str] = {
    "uniform": "tokens have different depths",
    "blind": "depths depend on the image",
    "undecided": "router logits differ between tokens",
    "random": "the chosen tokens are better than random ones",
}


@dataclass(frozen=True)
class Check:
    """A property of healthy routing, named by the way in which it fails."""

    kind: Kind
    outcome: Outcome
    found: str  # what was measured, or why it was not judged

    @property
    def property(self) -> str:
        """What is expected."""
        return PROPERTIES[self.kind]


def checks_of(
    failed: Collection[Kind],
    common: str,
    image_share: float | None,
    spread: Sequence[float | None] | None,
    baseline: Baseline | None,
) -> tuple[Check, ...]:
    """Return all checks; `common` says how common the most common depth is. See `degeneracy.assess`."""
    least = min((value for value in spread or () if value is not None), default=None)
    few = f"fewer than {BLIND_IMAGES} different images, or one depth for all tokens"
    between = (
        few if image_share is None else f"{share(image_share)} of the variance of depth is between images"
    )
    logits = "no selection" if least is None else f"standard deviation of router logits at least {least:.2g}"
    known: dict[Kind, tuple[bool, str]] = {
        "uniform": (True, common),
        "blind": (image_share is not None, between),
        "undecided": (least is not None, logits),
        "random": (outcome_of(baseline) != "not judged", _of(baseline)),
    }
    return tuple(
        Check(kind, "FAILED" if kind in failed else "passed" if judged else "not judged", found)
        for kind, (judged, found) in known.items()
    )


def outcome_of(baseline: Baseline | None) -> Outcome:
    """Whether the chosen tokens are better than random ones, as far as the images show it.

    Without labels, and if few images change, only a choice without any effect is found.
    """
    if baseline is None or baseline.images < ENOUGH:
        return "not judged"
    if baseline.gain is not None and baseline.interval.low > 0:
        return "passed"
    if wilson(baseline.agreement, baseline.images).low >= SAME_SHARE:
        return "FAILED"
    changed = baseline.won + baseline.lost
    return "FAILED" if changed >= CHANGED and baseline.won < WON_SHARE * changed else "not judged"


def summary(checks: Sequence[Check]) -> str:
    """What failed, what passed and what could not be judged, in one line."""
    words = {"FAILED": "DEGENERATE", "passed": "passed", "not judged": "not judged"}
    by = {outcome: [check.kind for check in checks if check.outcome == outcome] for outcome in words}
    return "; ".join(f"{words[outcome]}: {', '.join(kinds)}" for outcome, kinds in by.items() if kinds)


def _of(baseline: Baseline | None) -> str:
    if baseline is None:
        return "no images were run with random selection"
    if baseline.images < ENOUGH:
        return f"fewer than {ENOUGH} different images; {baseline}"
    if outcome_of(baseline) != "not judged":
        return str(baseline)
    return f"{'no labels' if baseline.gain is None else 'too few images to tell'}; {baseline}"
