"""Calibration of a checkpoint that owns its thresholds: one pass that fits buckets, or top-k on request."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_setup import COUNT, UNIT, save_model, save_pictures
from tiny_models import normalised

from morvit_deploy.bundle.images import open_images
from morvit_deploy.calibration.routing import gathering, sequence
from morvit_deploy.calibration.routing.checks import problems_of
from morvit_deploy.calibration.routing.gathering import Source, Task, gather
from morvit_deploy.calibration.routing.sequence import OWN, Rounds, scales_of
from morvit_deploy.calibration.routing.statistics import Shard
from morvit_deploy.errors import PlanError
from morvit_deploy.model.checkpoint import fingerprint, load_checkpoint
from morvit_deploy.model.config import load_config
from morvit_deploy.model.plan import is_own, plan_problems
from morvit_deploy.planning.conclusion import named
from morvit_deploy.planning.rounds import Calibrated, calibrate, calibrate_shard, merge_shards

TAUS, MEANS = (0.0, 0.0, 0.1), (8, 5, 2)
SCALES = (0.5, 1.0, 1.6)


@pytest.fixture(scope="module", autouse=True)
def small_and_fast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "UNIT", UNIT)
        patch.setattr(sequence, "SCALES", SCALES)
        yield


@pytest.fixture(scope="module")
def owning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(
        tmp_path_factory.mktemp("owning") / "model", thresholds=list(TAUS), capacity=list(MEANS)
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pictures(tmp_path_factory.mktemp("owning") / "images")


@pytest.fixture(scope="module")
def fitted(owning: Path, images: Path) -> Calibrated:
    return calibrate(owning, images, buckets=3)


def test_only_buckets_are_fitted(owning: Path, images: Path, fitted: Calibrated) -> None:
    reference, plan = load_checkpoint(owning).double(), fitted.plan
    assert plan_problems(plan, reference.config) == [] and plan.checkpoint == fingerprint(owning)
    assert plan.thresholds == TAUS and is_own(plan, reference.config)
    assert {(point.kind, point.scale, point.agreement) for point in fitted.points} == {
        ("threshold", None, 1.0)
    }
    assert [len(point.ladder.schedules) for point in fitted.points if point.ladder] == [1, 2, 3]
    pixels = open_images(images, reference.config).all()
    counts = np.array([trace.counts for trace in reference(normalised(reference.config, pixels)).traces])
    facts = plan.calibration
    assert facts is not None and facts["images"] == COUNT and facts["scale"] is None
    assert (
        facts["keep_share"] == (counts.mean(axis=0) / 16).tolist()
        and facts["decision_agreement"] == [1.0] * 3
    )
    assert plan.dispatched(counts)[1].mean() == facts["overflow"]
    assert (
        "3 buckets fitted to the checkpoint's own thresholds" in fitted.conclusion and fitted.adaptivity_pays
    )


def test_mode_threshold_says_the_same(owning: Path, images: Path, fitted: Calibrated) -> None:
    again = calibrate(owning, images, buckets=3, mode="threshold")
    assert again.plan.to_json() == fitted.plan.to_json()


def test_top_k_is_another_model(owning: Path, images: Path) -> None:
    found = calibrate(owning, images, mode="topk", scale=1.0, allow_worse=True)
    assert found.plan.mode == "topk" and found.plan.buckets[0].capacity == MEANS
    assert [point.scale for point in found.points] == list(SCALES)
    assert named(found.chosen) == "top-k at 1 × the trained capacities"
    assert (
        not is_own(found.plan, load_config(owning)) and plan_problems(found.plan, load_config(owning)) == []
    )


def test_there_is_no_other_scale(owning: Path, images: Path) -> None:
    with pytest.raises(PlanError, match="but the routing is the checkpoint's own and has no scale"):
        calibrate(owning, images, scale=0.5)


def test_shards_make_the_plan_of_one_pass(
    owning: Path, images: Path, fitted: Calibrated, tmp_path: Path
) -> None:
    for number in (2, 1):
        assert calibrate_shard(owning, images, tmp_path / "stats", Shard(number, 2)) is None
    merged = merge_shards(owning, tmp_path / "stats", buckets=3)
    assert merged.plan.to_json() == fitted.plan.to_json() and merged.as_dict() == fitted.as_dict()


def test_statistics_are_checked(owning: Path, images: Path) -> None:
    config, source = load_config(owning), Source(owning, images, limit=UNIT)
    assert scales_of(config, "threshold") == (OWN,) and scales_of(config, "topk") == SCALES
    rounds = Rounds(config, source.run("threshold", (OWN,)), 0)
    found = gather(Task(source, rounds.run, 0, rounds.thresholds))
    assert problems_of(found, config) == [] and found.thresholds == (TAUS,) and rounds.needed == 1
    extra = replace(found, tallies=found.tallies | {"topk.alike": np.array([4])})
    assert problems_of(extra, config) == ["topk.alike: not expected in this round"]
    other = replace(found, thresholds=((0.0, 0.0, 0.2),))
    with pytest.raises(PlanError, match="used other thresholds"):
        rounds.add(other)


def test_a_threshold_without_effect_is_remarked_on(images: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"thresholds": [-1e30, 0.0, 1e30], "capacity": [14, 5, 2]}
    model = save_model(tmp_path / "model", **changes)
    found = calibrate(model, images, buckets=2)
    assert [remark.split(" on these images, ") for remark in found.remarks] == [
        ["step 1: the threshold -1e+30 keeps every token",
         "while it kept 14 on average in training (`inspect --images` shows the depths)"],
        ["step 3: the threshold 1e+30 keeps no token",
         "while it kept 2 on average in training (`inspect --images` shows the depths)"],
    ]  # fmt: skip
