"""Judging routing: each way to degenerate is found, and healthy routing is left alone."""

from __future__ import annotations

import json

import numpy as np
import pytest

from morvit_deploy.inspecting.degeneracy import (
    BLIND_IMAGES,
    BLIND_SHARE,
    UNDECIDED_SPREAD,
    UNIFORM_SHARE,
    assess,
    between_images,
)

IMAGES, TOKENS, STEPS = 12, 64, 4
CAPACITY = (32, 16, 8, 4)
HEALTHY_SPREAD = (0.8, 1.2, 0.4, None)


def _top_k_depths(z: np.ndarray) -> np.ndarray:
    """Depths (n, N) when each step keeps the best tokens by z (n, N)."""
    rank = np.argsort(np.argsort(-z, axis=1), axis=1)
    return sum((rank < kept).astype(int) for kept in CAPACITY)


def _by_content(seed: int = 0) -> np.ndarray:
    """An object somewhere else in each image: its tokens are deep."""
    rng = np.random.default_rng(seed)
    rows, columns = np.divmod(np.arange(TOKENS), 8)
    centre = rng.uniform(1, 6, (IMAGES, 2, 1))
    return _top_k_depths(-np.hypot(rows - centre[:, 0], columns - centre[:, 1]))


def test_routing_by_content_is_healthy() -> None:
    found = assess(_by_content(), STEPS, HEALTHY_SPREAD, CAPACITY)
    assert not found.degenerate
    assert found.warning == ""
    assert (found.common_depth, found.common_share) == (0, 0.5)
    assert found.image_share is not None
    assert found.image_share > 0.3


def test_paper_figure_5_is_uniform() -> None:
    depth = np.ones((IMAGES, TOKENS), dtype=np.uint8)
    depth[:, 0] = 3
    found = assess(depth, STEPS, HEALTHY_SPREAD)
    assert "uniform" in {reason.kind for reason in found.reasons}
    assert "98.4% of patch tokens have depth 1 of 4" in found.warning
    assert "less than 95%" in found.warning
    assert "balancing loss" in found.warning


def test_uniform_by_its_own_capacity_says_so() -> None:
    depth = np.full((IMAGES, TOKENS), 4)
    found = assess(depth, STEPS, [None] * 4, capacity=[TOKENS] * 4)
    assert [reason.kind for reason in found.reasons] == ["uniform"]
    assert "capacity [64, 64, 64, 64]" in found.warning


def test_a_map_that_never_changes_is_blind_though_its_histogram_is_fine() -> None:
    depth = np.repeat(_by_content()[:1], IMAGES, axis=0)
    depth[0, :2] = depth[0, 1::-1]  # nearly alike is alike
    found = assess(depth, STEPS, HEALTHY_SPREAD, CAPACITY)
    assert [reason.kind for reason in found.reasons] == ["blind"]
    assert "position embedding" in found.warning


def test_few_images_cannot_be_called_blind() -> None:
    depth = np.repeat(_by_content()[:1], BLIND_IMAGES - 1, axis=0)
    assert between_images(depth) is None
    assert not assess(depth, STEPS, HEALTHY_SPREAD, CAPACITY).degenerate


def test_undecided_router_names_its_step() -> None:
    found = assess(_by_content(), STEPS, (0.9, UNDECIDED_SPREAD / 2, None, 0.4), CAPACITY)
    assert [reason.kind for reason in found.reasons] == ["undecided"]
    assert "0.025 at step 2" in found.warning
    assert "step 1" not in found.warning


@pytest.mark.parametrize(("share", "kinds"), [(UNIFORM_SHARE, ["uniform"]), (UNIFORM_SHARE - 0.01, [])])
def test_uniform_from_its_bound_on(share: float, kinds: list[str]) -> None:
    depth = np.ones((1, 100), dtype=int)
    depth[0, : round(100 * (1 - share))] = 2
    assert [reason.kind for reason in assess(depth, 2).reasons] == kinds


def test_variance_is_split_exactly() -> None:
    places, images = np.arange(8.0)[None, :], np.arange(6.0)[:, None]
    depth = (10 * places + images).astype(int)  # additive: the variances add up
    expected = images.var() / (100 * places.var() + images.var())
    assert between_images(depth) == pytest.approx(expected)
    assert expected < BLIND_SHARE


def test_one_depth_for_all_has_no_variance_to_split() -> None:
    assert between_images(np.ones((9, 9), dtype=int)) is None


def test_assessment_is_json() -> None:
    text = json.dumps(assess(np.ones((5, 4), dtype=np.uint8), 2, (0.1, None)).as_dict(), allow_nan=False)
    assert json.loads(text)["reasons"][0]["kind"] == "uniform"
