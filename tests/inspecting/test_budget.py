"""Images at a smaller budget: how many tokens they get, and what is concluded for each routing."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import make_config, random_model

from morvit_deploy.bundle.pixels import normalise, synthetic_images
from morvit_deploy.calibration.adaptivity.rule import Adaptivity
from morvit_deploy.inspecting.budget import SmallerBudget, fewer_tokens, tokens_over_threshold
from morvit_deploy.model.macs import schedule_macs

IMAGES = 8


@cache
def pictures(size: int) -> np.ndarray[Any, Any]:
    return synthetic_images(IMAGES, size)


def budget_of(labels: list[int | None] | None = None, **changes: Any) -> SmallerBudget:
    config = make_config(**changes)
    model = random_model(config)
    pixels = torch.from_numpy(normalise(pictures(config.image_size), config.preprocess))
    found = SmallerBudget(model)
    with torch.inference_mode():
        found.add(pixels, model(pixels), labels or [None] * IMAGES)
    return found


def adaptivity(labels: list[int | None] | None = None, **changes: Any) -> Adaptivity:
    return budget_of(labels, **changes).adaptivity(range(IMAGES))


def test_every_routed_step_gets_fewer_tokens() -> None:
    config = make_config()
    everyone = config.num_patches
    assert fewer_tokens((everyone, 9, 9, 1), config, 0.35) == (everyone, 3, 3, 1)
    upfront = make_config(routing="token_choice")
    assert fewer_tokens((everyone, everyone, 4, 0), upfront, 0.5) == (everyone, everyone // 2, 2, 1)


def test_a_static_threshold_lets_full_images_have_more() -> None:
    logits = np.array([[5.0, 4.0, 3.0, 2.0], [4.5, 0.0, -1.0, -2.0], [3.5, 1.0, 0.5, 0.0]])
    assert tokens_over_threshold(logits, 2).tolist() == [4, 1, 1]
    assert tokens_over_threshold(logits, 4).tolist() == [4, 4, 4]


def test_expert_choice_is_estimated_from_the_first_routed_step() -> None:
    found = adaptivity()
    assert found.estimated and found.spread is not None and found.full is None and found.topk is None
    assert found.spread.images == IMAGES and found.spread.one >= found.spread.each
    assert found.depth is not None and (found.depth.of, found.depth.scale) == ("agreement", 0.35)
    assert found.outcome == "too few images"


def test_depths_chosen_up_front_are_counted() -> None:
    budget = budget_of(routing="token_choice")
    found, config = budget.adaptivity(range(IMAGES)), budget.config
    assert not found.estimated and found.spread is not None
    assert found.spread.each == pytest.approx(np.mean([schedule_macs(config, n) for n in budget.counts]))
    assert found.full == schedule_macs(config, (config.num_patches,) * config.num_steps) >= found.spread.one


def test_only_the_given_images_count() -> None:
    budget = budget_of([0] * IMAGES)
    assert budget.adaptivity([0, 3]).depth == budget.adaptivity([3, 0]).depth
    found = budget.adaptivity([0, 3])
    assert found.depth is not None and found.depth.images == 2 and found.depth.of == "top-1"


def test_labels_make_it_top1_unless_one_is_missing_or_classes_are_not_exclusive() -> None:
    some: list[int | None] = [0] * (IMAGES - 1)
    for labels, changes, of in (
        ([*some, 1], {}, "top-1"),
        ([*some, None], {}, "agreement"),
        ([*some, 1], {"head_activation": "sigmoid"}, "agreement"),
    ):
        found = adaptivity(labels, **changes)
        assert found.depth is not None and found.depth.of == of


def test_capacities_that_cannot_be_smaller_are_not_compared() -> None:
    config = make_config()
    least = (config.num_patches, *[1] * (config.num_recursions - 1))
    assert adaptivity(capacity=least).depth is None


def test_flat_expert_choice_has_one_number_of_tokens() -> None:
    found = adaptivity(routing="expert_choice_flat")
    assert found.outcome == "one number of tokens" and found.spread is None and found.depth is not None
