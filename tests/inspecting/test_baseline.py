"""Learned routing against random selection: what the numbers say, and what they cannot."""

from __future__ import annotations

import numpy as np
import pytest

from morvit_deploy.inspecting.baseline import Baseline, compare
from morvit_deploy.inspecting.checks import ENOUGH, checks_of, outcome_of, summary
from morvit_deploy.inspecting.degeneracy import assess
from morvit_deploy.model.answers.accuracy import paired_interval

PUBLISHED = 5e-4


def baseline(right: int, chance_right: int, images: int = 100) -> Baseline:
    """Of nested sets of right images."""
    learned = [0 if i < right else 1 for i in range(images)]
    at_random = [0 if i < chance_right else 2 for i in range(images)]
    return compare(learned, at_random, [0] * images)


def checked(found: Baseline | None, kind: str = "random") -> str:
    depth = np.random.default_rng(0).integers(0, 4, (12, 64))
    return next(check.outcome for check in assess(depth, 4, (0.8,), None, found).checks if check.kind == kind)


def test_top1_of_both_and_the_gain() -> None:
    found = baseline(97, 77)
    assert (found.learned_top1, found.top1, found.agreement) == (0.97, 0.77, 0.77)
    assert found.gain == pytest.approx(0.2) and found.interval.low > 0.1
    assert found.as_dict()["gain"] == found.gain
    assert str(found) == "top-1 is 97.00 % learned and 77.00 % random: +20.0 points (+11.7 to +27.5)"


@pytest.mark.parametrize(
    ("won", "lost", "images", "low", "high"),
    [(20, 0, 100, 0.117, 0.275), (0, 0, 30, -0.061, 0.061), (12, 2, 50, 0.056, 0.329)],
)
def test_the_interval_of_a_paired_difference(
    won: int, lost: int, images: int, low: float, high: float
) -> None:
    """Agresti and Min's formula by hand: ((b - c) ± 1.96 √(b + c + 1 - (b - c)²/(n + 2))) / (n + 2)."""
    assert paired_interval(won, lost, images) == pytest.approx((low, high), abs=PUBLISHED)


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (baseline(97, 77), "passed"),
        (baseline(97, 94), "not judged"),  # three images are too few to tell
        (Baseline(200, 0.85, 0.80, 0.81, won=14, lost=12), "FAILED"),  # as many won as lost
        (Baseline(200, 0.90, 0.78, 0.81, won=12, lost=6), "not judged"),  # more images would tell
        (baseline(199, 198, 200), "FAILED"),  # nearly every class is the same
        (baseline(50, 70), "FAILED"),  # worse than chance
        (baseline(20, 5, ENOUGH - 1), "not judged"),
        (
            compare([0] * 100, [0] * 80 + [1] * 20, [None] * 100),
            "not judged",
        ),  # other classes: better or worse?
        (compare([0] * 100, [0] * 100, [None] * 100), "FAILED"),  # without effect
        (None, "not judged"),
    ],
)
def test_better_than_chance(found: Baseline | None, outcome: str) -> None:
    assert checked(found) == outcome


def test_why_it_was_not_judged() -> None:
    few, bare = baseline(20, 5, 20), compare([0] * 100, [0] * 80 + [1] * 20, [0] * 99 + [None])
    assert outcome_of(few) == "not judged" and bare.top1 is bare.gain is None
    found = {check.found for one in (few, bare, None) for check in checks_of((), "", None, None, one)}
    assert any(text.startswith("fewer than 30 different images; top-1 is") for text in found)
    assert any(
        text.startswith("no labels; random selection gives the same class on 80.00 % (71.") for text in found
    )
    close = checks_of((), "", None, None, baseline(97, 94))[-1].found
    assert close.startswith(
        "too few images to tell; top-1 is 97.00 % learned and 94.00 % random: +3.0 points"
    )
    assert "no images were run with random selection" in found


def test_a_summary_names_every_check_once() -> None:
    assert summary(checks_of({"blind"}, "", 0.01, None, None)) == (
        "DEGENERATE: blind; passed: uniform; not judged: undecided, random"
    )
