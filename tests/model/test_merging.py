"""Token merging by the reference, against the published arithmetic and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from merged_models import MERGED, merged_config, merged_named, published
from tiny_models import EXACT, normalised, random_model, random_pixels

from morvit_deploy.model.merging import Tokens, groups_of, merge
from morvit_deploy.model.trace import Decision, Routing, Trace


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("changes", MERGED, ids=merged_named)
def test_equals_the_published_arithmetic(changes: dict[str, Any], seed: int) -> None:
    config = merged_config(**changes)
    model = random_model(config, seed, torch.float64)
    images = normalised(config, random_pixels(config, 4, seed))
    assert (model(images).logits - published(model, images)).abs().max() <= EXACT


def tokens(*states: float) -> Tokens:
    """CLS and patches whose states are one number."""
    return Tokens(torch.tensor(states)[:, None], torch.ones(len(states)), torch.arange(-1, len(states) - 1))


# directions of CLS and five patches: 0 and 2 and 4 are B, 1 and 3 are A
METRIC = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.1, 2.0], [0.9, 0.1], [-1.0, 0.0]])


def test_the_most_similar_tokens_become_their_mean() -> None:
    after, decision = merge(tokens(10, 1, 2, 4, 8, 16), METRIC, 1, Routing())
    assert after.numbers.tolist() == [-1, 3, 0, 2, 4]  # patch 1 into 2 is more similar than 3 into 0
    assert decision.into is not None and decision.into.tolist() == [0, 2, 2, 3, 4]
    assert after.h[:, 0].tolist() == [10, 8, 1, 3, 16]
    assert after.sizes.tolist() == [1, 1, 1, 2, 1]
    assert decision.candidates.tolist() == [0, 1, 2, 3, 4]
    assert sorted(decision.kept.tolist()) == [0, 2, 3, 4]


def test_a_mean_weighs_by_size() -> None:
    once, _ = merge(tokens(0, 3, 9, 0, 0, 0), METRIC, 2, Routing())
    assert once.sizes.tolist() == [1, 2, 2, 1]  # CLS, patches 0, 2 and 4
    metric = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    twice, _ = merge(once, metric, 1, Routing())
    assert twice.numbers.tolist() == [-1, 0, 4]
    assert twice.sizes.tolist() == [1, 4, 1]
    assert twice.h[1].item() == pytest.approx((3 + 0 + 9 + 0) / 4)


def test_margin_is_that_of_the_closest_decision() -> None:
    unit = METRIC / METRIC.norm(dim=1, keepdim=True)
    similarity = unit[[2, 4]] @ unit[[1, 3, 5]].T
    best = similarity.max(dim=1).values
    _, one = merge(tokens(0, 1, 2, 3, 4, 5), METRIC, 1, Routing())
    assert one.margin == pytest.approx(abs(best[0] - best[1]).item())
    _, both = merge(tokens(0, 1, 2, 3, 4, 5), METRIC, 2, Routing())
    second = similarity.topk(2, dim=1).values
    assert both.margin == pytest.approx((second[:, 0] - second[:, 1]).min().item())


def test_depth_counts_the_steps_that_a_patch_goes_on_by_itself() -> None:
    config = merged_config()
    outcome = random_model(config)(normalised(config, random_pixels(config, 2)).float())
    for depth, trace in zip(outcome.depth, outcome.traces, strict=True):
        assert [int((depth > step).sum()) for step in range(3)] == list(config.capacity or ())
        assert depth.tolist() == [
            sum(patch in d.kept.tolist() for d in trace.decisions) for patch in range(config.num_patches)
        ]


def test_a_shuffled_baseline_merges_as_many() -> None:
    config = merged_config()
    model, images = random_model(config), normalised(config, random_pixels(config, 1)).float()
    own = model(images)
    shuffled = model(images, Routing(capacity=config.capacity, shuffle=torch.Generator().manual_seed(3)))
    assert shuffled.traces[0].counts == own.traces[0].counts
    assert shuffled.depth.tolist() != own.depth.tolist()


def test_states_are_those_after_each_layer() -> None:
    config = merged_config()
    trace: Trace = random_model(config)(normalised(config, random_pixels(config, 1)).float()).traces[0]
    assert [len(state) for state in trace.states.values()] == [17, 13, 10, 8, 8]
    assert list(trace.states) == ["embed", "step1", "step2", "step3", "layer4"]


def test_groups_follow_merges_through_all_steps() -> None:
    config = merged_config(capacity=[8, 4, 2])
    model, images = random_model(config, 0, torch.float64), normalised(config, random_pixels(config, 2))
    for trace in model(images).traces:
        groups = groups_of(trace.decisions)
        assert sorted(set(groups.tolist())) == sorted(trace.decisions[-1].kept.tolist())
        assert sorted(groups.bincount()[groups.unique()].tolist())[-1] > 1
    first = Decision(
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([0, 2, 3]),
        torch.zeros(4),
        1.0,
        3,
        torch.tensor([0, 2, 2, 3]),
    )
    second = Decision(
        torch.tensor([2, 0, 3]), torch.tensor([0, 3]), torch.zeros(3), 1.0, 2, torch.tensor([3, 0, 3])
    )
    assert groups_of([first, second]).tolist() == [0, 3, 3, 3]
