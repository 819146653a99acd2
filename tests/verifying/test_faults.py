"""Faults in what a bundle returns, in fp32 and below: each one fails, and a sound bundle passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bucket_plans import EXPERT, TOKEN, depth_ladder, threshold_ladder
from static_bundle import Alter, StaticBundle
from tiny_models import random_model, random_pixels

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.model.plan import Plan, own_plan
from morvit_deploy.verifying import dispatching

PICTURES = random_pixels(EXPERT, 16, seed=5)  # two more than fp16's gate needs
LADDERS = {"thresholds": (EXPERT, threshold_ladder()), "depths": (TOKEN, depth_ladder())}
both = pytest.mark.parametrize("precision", ["fp32", "fp16"])


def bundle(name: str = "thresholds", **options: Any) -> StaticBundle:
    config, plan = LADDERS[name]
    return StaticBundle(random_model(config), plan, **options)


@pytest.fixture
def no_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pictures at the bounds are looked for, where a fault shows in all."""
    monkeypatch.setattr(dispatching, "TRIED", 0)


def with_bounds(plan: Plan, number: int, **changes: Any) -> Plan:
    """The plan with other bounds of one bucket, unchecked."""
    buckets = list(plan.buckets)
    buckets[number] = buckets[number].model_copy(update=changes)
    return plan.model_copy(update={"buckets": tuple(buckets)})


@both
@pytest.mark.parametrize(
    ("name", "group"), [("thresholds", 1), ("thresholds", 3), ("depths", 2)], ids=lambda value: str(value)
)
def test_a_sound_bundle_passes(name: str, group: int, precision: str) -> None:
    result = bundle(name, precision=precision, group=group).verify(PICTURES)
    assert result.passed, result.failure
    assert result.edges is not None and result.dispatched is not None
    assert result.edges.reached >= 0.7 * result.edges.wanted > 0
    assert result.edges.unserved == () and result.edges.wrong == 0
    assert result.images == len(PICTURES), "constructed pictures are not counted as the user's"


def test_without_pictures_synthetic_ones_reach_every_bucket() -> None:
    result = bundle().verify()
    assert result.passed and result.edges is not None
    assert result.edges.unserved == () and result.synthetic


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize("number", [0, 1])
def test_a_bound_of_the_dispatch_table_that_is_off_by_one_fails_without_pictures(
    number: int, by: int
) -> None:
    plan = threshold_ladder()
    upto = (plan.buckets[number].upto or 0) + by
    result = bundle(runs=with_bounds(plan, number, upto=upto)).verify()
    assert not result.passed
    assert "ran in bucket" in result.failure or "in another bucket" in result.failure


@pytest.mark.parametrize("by", [-1, 1])
@pytest.mark.parametrize(("number", "step"), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)])
def test_a_bound_of_a_capacity_that_is_off_by_one_fails_without_pictures(
    number: int, step: int, by: int
) -> None:
    if (number, step, by) == (0, 1, 1):
        pytest.skip("b0 keeps 4 and then 4 tokens: no image has 5 at the second step alone")
    plan = threshold_ladder()
    capacity = list(plan.buckets[number].capacity)
    capacity[step] += by
    result = bundle(runs=with_bounds(plan, number, capacity=tuple(capacity))).verify()
    assert not result.passed
    assert "overflow" in result.failure or "another bucket" in result.failure or "ran in" in result.failure


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_capacity_of_depths_that_is_off_by_one_fails_without_pictures(step: int, by: int) -> None:
    plan = depth_ladder()
    capacity = list(plan.buckets[0].capacity)
    capacity[step] += by
    assert not bundle("depths", runs=with_bounds(plan, 0, capacity=tuple(capacity))).verify().passed


def no_overflow(outputs: Arrays) -> None:
    outputs["overflow"] = np.zeros_like(outputs["overflow"])


def all_overflow(outputs: Arrays) -> None:
    outputs["overflow"] = np.ones_like(outputs["overflow"])


def inverted_depth(outputs: Arrays) -> None:
    outputs["depth"] = outputs["depth"].max() - outputs["depth"]


def one_deeper(outputs: Arrays) -> None:
    outputs["depth"] = outputs["depth"].copy()
    outputs["depth"][:, 0] += 1


def biased(outputs: Arrays) -> None:
    outputs["logits"] = outputs["logits"] + np.float32(30)


def one_class_biased(outputs: Arrays) -> None:
    outputs["logits"] = outputs["logits"].copy()
    outputs["logits"][:, 1] += 0.1


def scaled(outputs: Arrays) -> None:
    outputs["logits"] = outputs["logits"] * np.float32(1.02)


def always_three(outputs: Arrays) -> None:
    outputs["logits"] = np.zeros_like(outputs["logits"])
    outputs["logits"][:, 3] = 1


def one_nan(outputs: Arrays) -> None:
    outputs["logits"] = outputs["logits"].copy()
    outputs["logits"][0, 0] = np.nan


def reversed_classes(outputs: Arrays) -> None:
    outputs["logits"] = outputs["logits"][:, ::-1]


OF_BUCKETS: list[tuple[Alter, str]] = [
    (inverted_depth, "depth is wrong"),
    (one_deeper, "depth is wrong"),
    (biased, "logit"),
    (one_class_biased, "logit"),
    (scaled, "logit"),
    (always_three, "class"),
    (one_nan, "finite"),
    (reversed_classes, "class"),
]


@both
@pytest.mark.parametrize(("alter", "words"), OF_BUCKETS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_wrong_output_of_the_buckets_fails(alter: Alter, words: str, precision: str) -> None:
    """Plans of one bucket had no row in which a wrong depth was counted."""
    sound = random_model(EXPERT), own_plan(EXPERT)
    result = StaticBundle(*sound, precision=precision, alter=alter).verify(PICTURES)
    assert not result.passed
    if precision == "fp16":
        assert words in result.failure
        assert result.only_gate_missed == (words in ("logit", "class")), "only a missed gate can be accepted"


@both
@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("alter", [no_overflow, all_overflow], ids=lambda value: value.__name__)
def test_a_wrong_overflow_of_the_buckets_fails(alter: Alter, precision: str) -> None:
    result = bundle(precision=precision, alter=alter).verify(PICTURES)
    assert not result.passed and not result.only_gate_missed
    assert "overflow is wrong for" in result.failure


def zero_bucket(outputs: Arrays) -> None:
    outputs["bucket"] = np.zeros_like(outputs["bucket"])


def swapped_images(outputs: Arrays) -> None:
    outputs["logits"] = np.roll(outputs["logits"], 1, axis=0)


AS_DISPATCHED: dict[str, dict[str, Any]] = {
    "no rerun on overflow": {"reruns": False},
    "always full": {"always_full": True},
    "always full, batch 3": {"always_full": True, "group": 3},
    "always full, any batch": {"always_full": True, "group": 32},
    "bucket always 0": {"dispatched": zero_bucket},
    "overflow never reported": {"dispatched": no_overflow},
    "images in another order": {"dispatched": swapped_images, "group": 4},
    "logits scaled": {"dispatched": scaled},
    "logits biased": {"dispatched": biased},
}


@both
@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("options", AS_DISPATCHED.values(), ids=AS_DISPATCHED)
def test_a_wrong_dispatch_fails(options: dict[str, Any], precision: str) -> None:
    result = bundle(precision=precision, **options).verify(PICTURES)
    assert not result.passed
    assert "dispatch" in result.failure


@pytest.mark.usefixtures("no_search")
def test_a_rerun_that_is_claimed_and_not_done_fails_in_fp16() -> None:
    """Bucket and overflow are as they should be; the logits are those of a bucket that was too small."""
    whole = bundle(precision="fp16")
    true, lie = whole.whole, StaticBundle(whole.model, whole.plan, precision="fp16", reruns=False)

    def claimed(pixels: Any) -> Arrays:
        return true(pixels) | {"logits": lie.whole(pixels)["logits"]}

    lie_told = StaticBundle(whole.model, whole.plan, precision="fp16")
    lie_told.whole = claimed  # type: ignore[method-assign]
    result = lie_told.verify(PICTURES)
    assert not result.passed and "other logits than those of the image's bucket" in result.failure


@both
def test_a_sound_bundle_of_one_bucket_passes(precision: str) -> None:
    assert StaticBundle(random_model(EXPERT), own_plan(EXPERT), precision=precision).verify(PICTURES).passed


@pytest.mark.parametrize("alter", [always_three, lambda outputs: None], ids=["always class 3", "sound"])
@pytest.mark.parametrize("images", [1, 10])
def test_too_few_images_are_said_to_be(alter: Callable[[Arrays], None], images: int) -> None:
    """Neither passed nor failed for being wrong, unless the error of the logits tells already."""
    sound = StaticBundle(random_model(EXPERT), own_plan(EXPERT), precision="fp16")
    result = StaticBundle(sound.model, sound.plan, precision="fp16", alter=alter).verify(PICTURES[:images])
    assert not result.passed
    assert f"too few images to judge fp16: got {images}, expected at least 14" in result.failure
    assert "change their class" not in result.failure and "token agreement" not in result.failure


@pytest.mark.parametrize("scale", [3e-5, 1.0, 1e4])
def test_small_router_logits_can_be_judged(scale: float) -> None:
    """Margins are relative to the spread of the router logits, which a factor does not change."""
    model = random_model(EXPERT)
    for router in model.all_routers():
        list(router.parameters())[-2].mul_(scale)  # the last layer's weight and bias
        list(router.parameters())[-1].mul_(scale)
    result = StaticBundle(model, own_plan(EXPERT)).verify(PICTURES)
    assert result.ambiguous <= 2
    assert result.gaps[0][1].passed


def test_routers_that_distinguish_no_tokens_are_named() -> None:
    model = random_model(EXPERT)
    for router in model.all_routers():
        list(router.parameters())[-2].zero_()  # only the bias is left: every decision is a tie
    result = StaticBundle(model, own_plan(EXPERT)).verify(PICTURES[:4])
    assert not result.passed
    assert "`morvit-deploy inspect CHECKPOINT`" in result.failure
