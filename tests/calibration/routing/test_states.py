"""States between rounds: the same statistics to the bit, within the budget, and no step run twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_setup import COUNT, UNIT, save_model, save_pictures

from morvit_deploy.calibration.routing import gathering
from morvit_deploy.calibration.routing.gathering import Source, Task, gather
from morvit_deploy.calibration.routing.scout import Scout
from morvit_deploy.calibration.routing.sequence import Rounds
from morvit_deploy.calibration.routing.states import States, bytes_of, nearest
from morvit_deploy.calibration.routing.statistics import Statistics
from morvit_deploy.model.checkpoint import load_checkpoint

UNITS = -(-COUNT // UNIT)
PLENTY = 2**40


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(gathering, "UNIT", UNIT)
    return Source(save_model(tmp_path / "model"), save_pictures(tmp_path / "images", labelled=True))


def all_rounds(source: Source, states: States | None) -> list[Statistics]:
    config = load_checkpoint(source.checkpoint).config
    rounds = Rounds(config, source.run("threshold", (0.5, 0.9, 1.0)), source.max_bad)
    while not rounds.complete:
        rounds.add(
            gather(Task(source, rounds.run, len(rounds.done), rounds.thresholds), lambda share: None, states)
        )
    return rounds.done


def assert_same(one: Statistics, other: Statistics) -> None:
    assert (one.thresholds, one.images, one.digest) == (other.thresholds, other.images, other.digest)
    for mine, its in zip(one.histograms, other.histograms, strict=True):
        np.testing.assert_array_equal(mine.counts, its.counts)
    for name in {*one.tallies, *other.tallies}:
        np.testing.assert_array_equal(one.tallies[name], other.tallies[name])
    assert (one.counts is None) == (other.counts is None)
    if one.counts is not None and other.counts is not None:
        np.testing.assert_array_equal(one.counts, other.counts)


class Counted(States):
    """Remembers the most bytes that it held, and how many units it took up again."""

    def __init__(self, budget: int) -> None:
        super().__init__(budget)
        self.most, self.resumed = 0, 0

    def take(self, unit: int) -> Any:
        found = super().take(unit)
        self.resumed += bool(found)
        return found

    def keep(self, unit: int, stops: Any) -> None:
        super().keep(unit, stops)
        self.most = max(self.most, self.used)


@pytest.mark.parametrize("share", [0.0, 0.4, 0.9, 1.0])
def test_statistics_are_the_same_with_any_budget(source: Source, share: float) -> None:
    plenty = Counted(PLENTY)
    wanted = all_rounds(source, None)
    for one, other in zip(wanted, all_rounds(source, plenty), strict=True):
        assert_same(one, other)
    states = Counted(int(share * plenty.most))
    for one, other in zip(wanted, all_rounds(source, states), strict=True):
        assert_same(one, other)
    assert states.most <= states.budget
    assert (states.resumed > 0) == (share > 0)
    assert plenty.resumed == UNITS * (len(wanted) - 1)
    assert states.used == 0  # the last round leaves nothing behind


def test_nothing_is_run_twice(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    starts, ran = [], []
    start, onward = Scout.start, Scout.onward
    monkeypatch.setattr(Scout, "start", lambda self, pixels: starts.append(1) or start(self, pixels))
    monkeypatch.setattr(
        Scout,
        "onward",
        lambda self, stopped, taus: ran.append(len(taus) - stopped.steps) or onward(self, stopped, taus),
    )
    all_rounds(source, States(PLENTY))
    assert len(starts) == UNITS
    assert {*ran} <= {0, 1}


def test_the_nearest_stop_has_run_the_most_steps(source: Source) -> None:
    scout = Scout(load_checkpoint(source.checkpoint))
    start = scout.start(source.folder().all())
    once = scout.onward(start, (0.1,))
    stops = {(): start, (0.1,): once}
    assert nearest(stops, (0.1, 0.2)) is once
    assert nearest(stops, (0.3, 0.2)) is start
    assert bytes_of(stops) > bytes_of({(): start}) >= start.state.h.nbytes


def test_the_budget_follows_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    assert States().budget == 250
