"""What the growth benchmark stands on: its configurations, its ladder of buckets, and its slopes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from places import BENCHMARKS

from morvit_deploy.model.plan import plan_problems
from morvit_deploy.model.presets import preset


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The benchmarks are scripts, not a package."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


@pytest.mark.parametrize("power", [0, 1, 2])
def test_slopes(power: int) -> None:
    from growth import slope

    assert slope([1, 2, 4, 8], [3.0 * x**power for x in (1, 2, 4, 8)]) == pytest.approx(power)


def test_the_first_point_of_three_axes_is_the_preset() -> None:
    from growth import config_of

    assert config_of().capacity == preset("morvit_b16").capacity


@pytest.mark.parametrize(("pixels", "first"), [(224, 80), (512, 420)])
def test_larger_pictures_keep_the_same_share(pixels: int, first: int) -> None:
    from growth import config_of

    config = config_of(pixels=pixels, steps=24)
    assert config.capacity is not None
    assert config.num_patches == (pixels // 16) ** 2 and config.capacity[0] == first
    assert len(config.capacity) == 24 and config.capacity[-1] == 1


@pytest.mark.parametrize("buckets", [2, 4, 8])
def test_every_ladder_begins_with_the_same_bucket(buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import growth

    monkeypatch.setattr(growth, "fingerprint", lambda folder: None)
    config = growth.config_of()
    plan = growth.plan_of(config, buckets, Path("checkpoint"))
    assert plan is not None and plan_problems(plan, config) == []
    assert len(plan.buckets) == buckets and plan.buckets[0].capacity == config.capacity
    assert growth.plan_of(config, 1, Path("checkpoint")) is None
