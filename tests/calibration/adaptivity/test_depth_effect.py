"""How much accuracy depends on depth: the slope, its interval, and what few images cannot tell."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from morvit_deploy.calibration.adaptivity.depth_effect import (
    ENOUGH,
    MOST_IMAGES,
    NEGLIGIBLE,
    DepthEffect,
    depth_effect,
)
from morvit_deploy.model.answers.accuracy import Z, paired_interval, wilson

ROUNDING = 1e-12  # sums of a few float64


def labelled(lost: float, changed: float, images: int = 5000) -> DepthEffect:
    return DepthEffect(images, "top-1", 0.35, 0.9, 0.9 - lost, changed)


def unlabelled(agreement: float, images: int = 5000) -> DepthEffect:
    return DepthEffect(images, "agreement", 0.35, 1.0, agreement, 1 - agreement)


def test_the_slope_is_the_loss_of_each_halving() -> None:
    found = replace(labelled(0.04, 0.06), scale=0.25)
    assert found.loss == pytest.approx(0.04, abs=ROUNDING) and found.slope == pytest.approx(0.02)
    assert found.slope_interval == pytest.approx([bound / 2 for bound in found.interval])
    assert labelled(0.04, 0.06).slope == pytest.approx(0.04 / math.log2(1 / 0.35))


def test_the_interval_is_of_the_paired_difference() -> None:
    """250 images won and 50 lost: 4 points of 5,000, by hand ±1.96 √(301 - 200²/5002)/5002."""
    found = labelled(0.04, 0.06)
    assert found.interval == pytest.approx(paired_interval(250, 50, 5000))
    half = Z * math.sqrt(301 - 200**2 / 5002) / 5002
    assert found.interval == pytest.approx((200 / 5002 - half, 200 / 5002 + half))


def test_without_labels_the_interval_is_that_of_the_agreement() -> None:
    low, high = wilson(0.97, 400)
    assert unlabelled(0.97, 400).interval == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("found", "effect"),
    [
        (labelled(0.04, 0.06), "matters"),
        (labelled(0.0, 0.02), "does not matter"),
        (labelled(-0.01, 0.03), "does not matter"),  # a smaller budget is even better
        (labelled(0.003, 0.003), "does not matter"),  # surely a loss, and surely negligible
        (labelled(0.003, 0.02), "unknown"),
        (labelled(0.04, 0.06, ENOUGH - 1), "unknown"),
        (labelled(1.0, 1.0, ENOUGH - 1), "unknown"),  # however large
        (labelled(0.9, 0.9, ENOUGH), "matters"),
        (labelled(0.0, 0.0, 200), "unknown"),  # nothing changed, but 200 images do not show half a point
        (labelled(0.0, 0.0, 400), "does not matter"),
        (unlabelled(0.93), "matters"),
        (unlabelled(0.995), "does not matter"),
        (unlabelled(1.0, 300), "unknown"),
        (unlabelled(1.0, 400), "does not matter"),
        (unlabelled(0.99), "unknown"),
    ],
)
def test_the_effect(found: DepthEffect, effect: str) -> None:
    assert found.effect == effect


def test_the_border_of_a_negligible_loss() -> None:
    images = next(n for n in range(ENOUGH, 1000) if labelled(0.0, 0.0, n).interval.high <= NEGLIGIBLE)
    assert labelled(0.0, 0.0, images - 1).effect == "unknown"
    assert labelled(0.0, 0.0, images).effect == "does not matter"


@pytest.mark.parametrize(
    "found",
    [labelled(0.0, 0.0, 5), labelled(0.02, 0.03, 100), labelled(0.0, 0.1, 50), unlabelled(0.97, 60)],
)
def test_so_many_images_would_tell(found: DepthEffect) -> None:
    needed = found.images_needed
    assert needed is not None and needed > found.images
    assert replace(found, images=needed).effect != "unknown"
    assert replace(found, images=needed // 2).effect == "unknown"
    assert found.as_dict()["images_needed"] == needed


def test_on_the_border_only_labels_would_tell() -> None:
    assert unlabelled(0.99, 100).images_needed is None
    assert unlabelled(0.99, MOST_IMAGES).effect == "unknown"


def test_images_are_compared_one_by_one() -> None:
    pairs = [(True, True)] * 6 + [(True, False)] * 3 + [(False, True)]
    found = depth_effect(0.35, [True] * 5 + [False] * 5, pairs)
    assert found == DepthEffect(10, "top-1", 0.35, 0.9, 0.7, 0.4)
    assert depth_effect(0.5, [True, True, False, True]) == DepthEffect(4, "agreement", 0.5, 1.0, 0.75, 0.25)
