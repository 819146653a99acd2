"""Which thresholds a round knows, and rounds that do not follow from those before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from calibration_setup import last_of, logits_of, run_of
from tiny_models import make_config

from morvit_deploy.calibration.routing.sequence import (
    NOBODY,
    OWN,
    SCALES,
    Rounds,
    rounds_of,
    routed,
    scaled,
    target,
    thresholds_after,
)
from morvit_deploy.errors import ImageError, MorvitError, PlanError

CONFIG = make_config()  # 16 tokens; 12, 6, 3 go on
RUN = run_of()


@pytest.mark.parametrize(
    ("capacity", "steps"),
    [([12, 6, 3], (0, 1, 2)), ([16, 6, 6], (1,)), ([16, 16, 1], (2,)), ([16, 16, 16], ()), ([5, 5, 5], (0,))],
    ids=str,
)
def test_routed_steps_and_rounds(capacity: list[int], steps: tuple[int, ...]) -> None:
    config = make_config(capacity=capacity)
    assert routed(config) == steps
    assert rounds_of(config, "threshold") == len(steps) + 1
    assert rounds_of(config, "topk") == rounds_of(config, "depth") == 1


@pytest.mark.parametrize(
    ("capacity", "scale", "wanted"),
    [
        ([12, 6, 3], OWN, (12, 6, 3)),
        ([12, 6, 3], 0.5, (6, 3, 2)),
        ([12, 6, 3], 1.6, (16, 10, 5)),
        ([12, 6, 3], 0.01, (1, 1, 1)),
        ([16, 6, 6], 0.5, (16, 3, 3)),
        ([16, 6, 6], 100.0, (16, 16, 16)),
    ],
    ids=str,
)
def test_scaled_schedules(capacity: list[int], scale: float, wanted: tuple[int, ...]) -> None:
    assert scaled(make_config(capacity=capacity), scale) == wanted


def test_own_scale_is_among_the_scales() -> None:
    assert OWN in SCALES and list(SCALES) == sorted(SCALES)


def test_a_threshold_keeps_the_mean_of_the_schedule() -> None:
    assert target(CONFIG, OWN, 1, 100) == 600
    assert target(CONFIG, 0.35, 2, 100) == 105  # 1.05 tokens of each image: a mean need not be whole
    assert target(CONFIG, 1.6, 0, 100) == 1600  # no more than there are


def test_thresholds_known_after_each_round() -> None:
    config, run = make_config(capacity=[16, 6, 3]), run_of(scales=(0.5, OWN))
    assert thresholds_after(config, run, []) == ((None,),) * 2  # up to the first routed step
    first = logits_of([float(i) for i in range(48)], run=run)  # of 3 images
    ((none, tau), (_, own)) = known = thresholds_after(config, run, [first])
    assert none is None and tau is not None and own is not None
    assert 38 < tau <= 39 and 29 < own <= 30  # 9 and 18 tokens reach it
    second = logits_of([0.0, 1.0, 2.0], 1, thresholds=known, run=run)
    assert [len(taus) for taus in thresholds_after(config, run, [first, second])] == [3, 3]
    last = replace(second, round=2, histograms=[])
    assert thresholds_after(config, run, [first, second, last]) == thresholds_after(
        config, run, [first, second]
    )


def test_unrouted_steps_at_the_end_have_no_threshold() -> None:
    config, run = make_config(capacity=[6, 6, 6]), run_of(scales=(OWN,))
    ((tau, *rest),) = thresholds_after(config, run, [logits_of([0.0, 1.0, 2.0], run=run)])
    assert tau is not None and rest == [None, None]


@pytest.mark.parametrize("mode", ["topk", "depth"])
def test_other_modes_have_no_thresholds(mode: str) -> None:
    assert thresholds_after(CONFIG, run_of(mode, scales=(OWN,)), []) == ((),)


def test_where_nobody_is_left_any_threshold_will_do() -> None:
    taus = thresholds_after(CONFIG, RUN, [logits_of([])])
    assert taus == ((NOBODY,),) * len(SCALES)


# --- rounds


def begun() -> Rounds:
    rounds = Rounds(CONFIG, RUN, max_bad=1)
    assert rounds.thresholds == ((),) * len(SCALES) and not rounds.complete
    rounds.add(logits_of([float(i) for i in range(48)]))
    return rounds


def following(rounds: Rounds, **changes: Any) -> Any:
    return replace(logits_of([0.0, 1.0], 1, thresholds=rounds.thresholds), **changes)


def test_rounds_end_with_the_counts() -> None:
    rounds = begun()
    rounds.add(following(rounds))
    rounds.add(replace(logits_of([1.0, 2.0], 2), thresholds=rounds.thresholds))
    assert not rounds.complete
    last = replace(last_of(CONFIG, [[9, 5, 2]] * 3), round=3, thresholds=rounds.thresholds, digest=5)
    rounds.add(last)
    assert rounds.complete and rounds.last is last
    assert [len(taus) for taus in rounds.thresholds] == [3] * len(SCALES)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"run": run_of(count=9)}, PlanError, "round 2 belongs to another run: number of images 9 and 6"),
        ({"bad": [("a", "a"), ("b", "b")]}, ImageError, "unreadable images: 2 so far, --max-bad allows 1"),
        ({"digest": 6}, ImageError, "images changed between rounds 1 and 2 .*start again"),
        (
            {"thresholds": ((0.5,),) * 7},
            PlanError,
            "round 2 of shards 1/1 used other thresholds",
        ),
        ({"images": 0}, ImageError, "none of the 6 images could be read"),
    ],
    ids=["run", "bad", "images", "thresholds", "none"],
)
def test_what_does_not_follow(changes: dict[str, Any], kind: type[MorvitError], message: str) -> None:
    rounds = begun()
    with pytest.raises(kind, match=message):
        rounds.add(following(rounds, **changes))
    assert len(rounds.done) == 1
    rounds.add(following(rounds))


def test_thresholds_fall_as_more_is_kept() -> None:
    taus = np.array(begun().thresholds)[:, 0]
    assert (np.diff(taus) < 0).all()
