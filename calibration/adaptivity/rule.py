"""The rule that says whether adaptive depth can pay, and why not if it cannot. No torch.

Two things must hold at once: images differ in how many tokens they need, and later steps matter for the tokens that
get them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from morvit_deploy.calibration.adaptivity.depth_effect import ENOUGH, DepthEffect
from morvit_deploy.calibration.adaptivity.spread import Spread
from morvit_deploy.report import cost_in, numbered

# one bucket for all images against a bucket for each: a smaller ratio is out of reach, because fitted buckets leave
# pads and choosing one takes time
VARIES = 1.05
SAVES = 1.005  # a smaller saving is printed as 1.00×

Outcome = Literal[
    "can save",
    "depth does not matter",
    "counts do not vary",
    "top-k is as cheap",
    "no thresholds keep accuracy",
    "too few images",
    "one number of tokens",
    "not measured",
]


@dataclass(frozen=True)
class Adaptivity:
    """What images say about adaptive depth: the measurements and their outcome."""

    depth: DepthEffect | None = None  # None: not measured
    spread: Spread | None = None  # of the adaptive routing; None: not measured
    topk: float | None = None  # cost of the cheapest top-k that keeps the accuracy; None: not compared
    full: float | None = None  # cost of every token in every step, if the routing has no top-k to use instead
    keeps: bool = True  # whether the adaptive routing keeps the accuracy of the trained model
    unit: str = "MACs"
    one_number: bool = False  # the routing supports only one number of tokens for all images
    estimated: bool = False  # the spread is an estimate; `calibrate` measures it

    @property
    def rival(self) -> tuple[str, float] | None:
        """Name and cost of what a user would run without adaptive routing; None if counts were not measured."""
        if self.spread is None:
            return None
        if self.full is not None:
            return "`full`", self.full
        if self.topk is not None and self.topk <= self.spread.one:
            return "top-k", self.topk
        return "one bucket for all images", self.spread.one

    @property
    def saving(self) -> float | None:
        """How many times cheaper a bucket for each image is than the rival; None if not measured.

        No number of buckets saves more on these images.
        """
        if self.spread is None or self.rival is None:
            return None
        return self.rival[1] / self.spread.each

    @property
    def outcome(self) -> Outcome:
        """The first reason against adaptive routing, or "can save" if there is none."""
        depth, spread = self.depth, self.spread
        if depth is not None and depth.effect == "does not matter":
            return "depth does not matter"
        if self.one_number:
            return "one number of tokens"
        if spread is None or self.saving is None:
            return "not measured"
        if spread.images < ENOUGH:
            return "too few images"
        if not self.keeps:
            return "no thresholds keep accuracy"
        if spread.ratio < VARIES:
            return "counts do not vary"
        if self.saving < SAVES:
            return "top-k is as cheap"
        # with depths chosen up front, buckets return the trained model's logits whether depth matters or not
        if self.full is None and depth is not None and depth.effect == "unknown":
            return "too few images"
        return "can save"

    @property
    def sentence(self) -> str:
        """The outcome in a sentence; empty if counts were not measured."""
        return _sentence(self)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of a report."""
        return {
            "outcome": self.outcome,
            "sentence": self.sentence,
            "saving": self.saving,
            "depth": self.depth and self.depth.as_dict(),
            "counts": self.spread and self.spread.as_dict(),
            "estimated": self.estimated,
            "topk": self.topk,
            "full": self.full,
            "unit": self.unit,
        }


def _sentence(found: Adaptivity) -> str:
    match found.outcome:
        case "can save":
            return _can_save(found)
        case "depth does not matter":
            return f"Depth does not matter for this model: a smaller budget loses nothing{_at(found.depth)}."
        case "counts do not vary":
            use = "use top-k" if found.full is None else "one bucket beside `full` is enough"
            return f"All images need about the same number of tokens: {use}."
        case "top-k is as cheap":
            assert found.spread is not None and found.topk is not None
            each, topk = (cost_in(cost, found.unit) for cost in (found.spread.each, found.topk))
            return f"{_vary(found)}, but a bucket for each image costs {each} and top-k {topk}: use top-k."
        case "no thresholds keep accuracy":
            return "No thresholds keep the accuracy of the trained model: use top-k."
        case "too few images":
            return _too_few(found)
        case "one number of tokens":
            return (
                "This routing runs the same number of tokens for every image, so there is nothing to adapt."
            )
        case "not measured":
            return ""


def _vary(found: Adaptivity) -> str:
    matters = found.depth is not None and found.depth.effect == "matters"
    return "Counts vary, depth matters" if matters else "Counts vary"


def _can_save(found: Adaptivity) -> str:
    assert found.rival is not None
    compares = "; `calibrate` compares it with top-k" if found.estimated else ""
    saved = f"{_vary(found)}: adaptive routing can save up to {found.saving:.2f}× over {found.rival[0]}{compares}."
    if found.depth is None or found.depth.effect != "unknown":
        return saved
    return f"{saved} Whether depth matters cannot be told: {_more(found.depth)}."


def _at(depth: DepthEffect | None) -> str:
    """The evidence that a smaller budget loses nothing."""
    if depth is None:
        return ""
    low, high = (f"{-100 * bound:+.1f}" for bound in reversed(depth.interval))
    return f" ({depth.of} at {depth.scale:g} × the tokens: {low} to {high} points)"


def _too_few(found: Adaptivity) -> str:
    """What cannot be told, and how many images would tell."""
    depth, spread = found.depth, found.spread
    if spread is not None and spread.images < ENOUGH:
        few = _few(spread.images)
        return f"It cannot be told whether adaptive routing can save: {few}; at least {ENOUGH} are needed."
    assert depth is not None
    return f"Counts vary, but it cannot be told whether depth matters: {_more(depth)}."


def _more(depth: DepthEffect) -> str:
    needed = depth.images_needed
    return f"{_few(depth.images)}; " + (
        "labels would tell" if needed is None else f"about {needed:,} would tell"
    )


def _few(images: int) -> str:
    return f"{numbered(images, 'image')} {'is' if images == 1 else 'are'} too few"
