"""Slower than an earlier run: beyond the limit and beyond noise, of the same bundle on the same machine."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from comparisons import CONDITIONS
from measurements import measured

from morvit_deploy.errors import CheckFailed, ConfigError
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.regression import Change, change_table, changes, check_changes, read_earlier
from morvit_deploy.timing.samples import Block


def result(*blocks_ms: float, bundle: str = "build/a", batch: int = 1) -> BenchResult:
    one = measured(*((ms,) * 3 for ms in blocks_ms), bundle=bundle, batch=batch)
    return BenchResult("cpu", (one,), dict(CONDITIONS))


@pytest.fixture
def earlier(tmp_path: Path) -> Callable[..., Path]:
    """Writes a result as `bench -o` does, perhaps after a change."""

    def write(found: BenchResult, change: Callable[[dict[str, Any]], object] = lambda found: None) -> Path:
        data = json.loads(json.dumps(found.as_dict()))
        change(data)
        (tmp_path / "old.json").write_text(json.dumps(data))
        return tmp_path / "old.json"

    return write


@pytest.mark.parametrize(
    ("before", "now", "fails"),
    [
        ((10.0, 10.1, 9.9), (10.4, 10.4, 10.4), False),
        ((10.0, 10.1, 9.9), (11.0, 11.1, 10.9), True),
        ((10.0, 10.1, 9.9), (9.0, 9.0, 9.0), False),
        ((10.0, 10.1, 9.9), (9.0, 11.0, 12.0), False),
        ((10.0, 14.0, 9.0), (11.0, 11.0, 11.0), False),
    ],
    ids=["within", "slower", "faster", "the new run scatters", "the old run scattered"],
)
def test_slower_beyond_the_limit_and_the_noise(
    before: tuple[float, ...], now: tuple[float, ...], fails: bool
) -> None:
    assert Change("a", before, now, 0.05).fails is fails


def test_a_slower_bundle_is_a_failed_check(earlier: Callable[..., Path]) -> None:
    old = read_earlier(earlier(result(10.0, 10.0, 10.0)))
    found = changes(result(12.0, 12.0, 12.0), old, 0.05)
    assert found[0].slower == pytest.approx(0.2)
    with pytest.raises(CheckFailed, match=r"slower than before: a by 20\.0 %; at most 5\.0 % is allowed"):
        check_changes(found)
    assert change_table(found, old).rows == [("a", "10.0", "12.0", "+20.0 %", "slower")]
    check_changes(changes(result(12.0, 12.0, 12.0), old, 0.25))


def test_runs_of_several_buckets_are_compared_by_their_means(earlier: Callable[..., Path]) -> None:
    found = result(1.0)
    stream = Block((1.0, 1.0, 7.0), bucket=(("s",), ("s",), ("full",)), overflow=((False,),) * 3)
    adaptive = BenchResult("cpu", (replace(found.measured[0], blocks=(stream,)),), found.conditions)
    (change,) = changes(adaptive, read_earlier(earlier(adaptive)), 0.0)
    assert change.before_ms == change.now_ms == (3.0,)


@pytest.mark.parametrize("chosen", [True, False])
def test_pictures_that_take_other_buckets(earlier: Callable[..., Path], chosen: bool) -> None:
    """A bundle of one bucket takes the same time for every picture."""
    found = result(1.0)
    stream = Block((1.0, 1.0), bucket=(("s",), ("full",)), overflow=((False,),) * 2)
    measured_on = {**found.conditions, "inputs": "pictures of photos"}
    blocks = (stream,) if chosen else found.measured[0].blocks
    now, then = (
        BenchResult("cpu", (replace(found.measured[0], blocks=blocks),), conditions)
        for conditions in (found.conditions, measured_on)
    )
    old = read_earlier(earlier(then))
    if not chosen:
        assert changes(now, old, 0.05)
        return
    with pytest.raises(
        ConfigError, match="got pictures of photos, expected synthetic pictures; give both runs"
    ):
        changes(now, old, 0.05)


def test_the_only_bundle_of_both_may_have_another_name(earlier: Callable[..., Path]) -> None:
    old = read_earlier(earlier(result(10.0, bundle="build/main")))
    assert [one.name for one in changes(result(10.0, bundle="build/pull"), old, 0.05)] == ["pull"]
    both = BenchResult("cpu", (*result(1.0).measured, *result(1.0, bundle="b").measured), dict(CONDITIONS))
    with pytest.raises(ConfigError, match=r"has the bundles main, and none of a, b"):
        changes(both, old, 0.05)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda found: found["conditions"]["machine"].update(processor="another"), "another machine"),
        (lambda found: found["conditions"].update(threads=7), "another threads: got 7, expected 2"),
        (lambda found: found.update(device="ssh"), "another device: got ssh, expected cpu"),
        (lambda found: found["bundles"][0].update(batch=8), "was measured at batch 8, now at 1"),
        (lambda found: found["bundles"][0].update(blocks=[]), "damaged"),
        (lambda found: found["bundles"][0].pop("blocks"), "damaged"),
        (lambda found: found["conditions"].pop("machine"), "damaged"),
        (lambda found: found.pop("bundles"), "expected a result of `bench -o`"),
        (lambda found: found.update(format="morvit-compare/1"), "expected a result of `bench -o`"),
    ],
)
def test_runs_that_cannot_be_compared(
    earlier: Callable[..., Path], change: Callable[[dict[str, Any]], object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        changes(result(10.0), read_earlier(earlier(result(10.0), change)), 0.05)
