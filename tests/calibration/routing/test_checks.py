"""Statistics that contradict themselves or the checkpoint: every array is checked, and a missing one is not none."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibration_setup import COUNT, UNIT, save_model, save_pictures

from morvit_deploy.calibration.routing import gathering, sequence
from morvit_deploy.calibration.routing.checks import problems_between, problems_of
from morvit_deploy.calibration.routing.cluster import Cluster
from morvit_deploy.calibration.routing.gathering import Source, Task, gather
from morvit_deploy.calibration.routing.histograms import Histogram
from morvit_deploy.calibration.routing.sequence import Rounds, scales_of
from morvit_deploy.calibration.routing.statistics import Shard, Statistics, join
from morvit_deploy.errors import PlanError
from morvit_deploy.model.config import Config, load_config
from morvit_deploy.planning.rounds import calibrate_shard, merge_shards

SHARDS = [Shard(1, 2), Shard(2, 2)]


@pytest.fixture(scope="module", autouse=True)
def small_and_fast() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "UNIT", UNIT)
        patch.setattr(sequence, "SCALES", (0.5, 1.0, 1.6))
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    folder = tmp_path_factory.mktemp("checks")
    return Source(save_model(folder / "model"), save_pictures(folder / "images", labelled=True))


@pytest.fixture(scope="module")
def config(source: Source) -> Config:
    return load_config(source.checkpoint)


def rounds_in(source: Source, mode: str) -> list[list[Statistics]]:
    """The two shards of each round."""
    config = load_config(source.checkpoint)
    rounds = Rounds(config, source.run(mode, scales_of(config, mode)), 0)
    parts = []
    while not rounds.complete:
        task = Task(source, rounds.run, len(rounds.done), rounds.thresholds)
        parts.append([gather(replace(task, shard=shard)) for shard in SHARDS])
        rounds.add(join(parts[-1]))
    return parts


@pytest.fixture(scope="module")
def threshold(source: Source) -> list[list[Statistics]]:
    return rounds_in(source, "threshold")


@pytest.fixture
def last(threshold: list[list[Statistics]]) -> Statistics:
    """The first shard of the last round, to be changed."""
    found = threshold[-1][0]
    assert found.counts is not None
    return replace(found, counts=found.counts.copy(), tallies=dict(found.tallies), bad=list(found.bad))


def check_sound(parts: list[list[Statistics]], config: Config) -> None:
    wholes = [join(shards) for shards in parts]
    for one in (*(shard for shards in parts for shard in shards), *wholes):
        assert problems_of(one, config) == []
    assert problems_between(wholes, config) == []


def test_what_was_counted_is_sound(threshold: list[list[Statistics]], config: Config) -> None:
    check_sound(threshold, config)


@pytest.mark.parametrize(("mode", "changes"), [("topk", {}), ("depth", {"routing": "token_choice"})])
def test_other_modes_are_sound(tmp_path: Path, source: Source, mode: str, changes: dict[str, Any]) -> None:
    other = replace(source, checkpoint=save_model(tmp_path / "model", **changes))
    check_sound(rounds_in(other, mode), load_config(other.checkpoint))


def test_a_shard_without_images_is_sound(
    source: Source, config: Config, threshold: list[list[Statistics]]
) -> None:
    whole = join(threshold[-1])
    task = Task(source, whole.run, whole.round, whole.thresholds, Shard(9, 9))
    assert problems_of(gather(task), config) == []


def tallies(**changes: Any) -> Callable[[Statistics], None]:
    def change(found: Statistics) -> None:
        for name, value in changes.items():
            found.tallies[name.replace("_", ".")] = value

    return change


def without(*names: str) -> Callable[[Statistics], None]:
    def change(found: Statistics) -> None:
        for name in names:
            del found.tallies[name]

    return change


def setting(**changes: Any) -> Callable[[Statistics], None]:
    def change(found: Statistics) -> None:
        for name, value in changes.items():
            setattr(found, name, value(found) if callable(value) else value)

    return change


ONES = np.ones(3, dtype=np.int64)
WRONG = {
    "agreement above 1": (tallies(threshold_alike=99 * ONES), "tally threshold.alike: got 99 … 99, expected 0 … 8"),
    "agreement below 0": (tallies(topk_alike=-ONES), r"tally topk.alike: got -1 … -1"),
    "no counts": (setting(counts=None), "counts: missing in this round"),
    "no tally": (without("threshold.right"), "threshold.right: missing"),
    "no tallies": (setting(tallies={}), "labelled: missing"),
    "an unknown tally": (tallies(depth_alike=ONES), "depth.alike: not expected"),
    "half of the counts": (setting(counts=lambda s: s.counts[:4]), r"\(4, 3, 3\), expected uint8 \(8, 3, 3\)"),
    "counts of a step fewer": (setting(counts=lambda s: s.counts[..., :2]), r"counts: got uint8 \(8, 3, 2\)"),
    "counts of floats": (setting(counts=lambda s: s.counts.astype(float)), "counts: got float64"),
    "more tokens than there are": (setting(counts=lambda s: s.counts + 200), "counts: got 2.. tokens, expected at m"),
    "tokens that come back": (setting(counts=lambda s: s.counts[..., ::-1]), "none returns"),
    "a tally for one scale": (tallies(topk_alike=ONES[:1]), r"topk.alike: got int64 \(1,\), expected"),
    "a tally of floats": (tallies(topk_alike=ONES * 1.0), "tally topk.alike: got float64"),
    "a tally of NaN": (tallies(topk_alike=ONES * np.nan), "tally topk.alike: got float64"),
    "decisions above all tokens": (
        tallies(threshold_decisions=np.full((3, 3), 8 * 16 + 1)), "decisions: got 129 … 129, expected 0 … 128"
    ),
    "right without labels": (tallies(labelled=np.int64(0), right=np.int64(1)), "tally right: got 1, expected"),
    "right though the class differs": (
        tallies(topk_alike=8 * ONES, right=np.int64(0), topk_right=8 * ONES), "tally topk.right: got .* contradicts",
    ),
    "more images than the run": (setting(images=99), "images: got 99 and 0 unreadable ones, expected at most 14"),
    "an image twice": (setting(bad=[("a.png", "torn")] * 2), "bad: an image is named twice"),
    "a round that is not": (setting(round=4), "round: got 5, expected 1 … 4"),
    "the last round as an earlier one": (setting(round=1), "counts: not expected in this round"),
    "other scales": (setting(run=lambda s: replace(s.run, scales=(1.0,))), r"scales: got \[1.0\]"),
    "another mode": (setting(run=lambda s: replace(s.run, mode="depth")), "mode: got 'depth'"),
    "thresholds of one scale": (setting(thresholds=lambda s: s.thresholds[:1]), "thresholds: got 1, expected one"),
}  # fmt: skip  # a table


@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_a_last_round_that_is_wrong(
    last: Statistics, config: Config, change: Callable[[Statistics], None], message: str
) -> None:
    change(last)
    assert re.search(message, "\n".join(problems_of(last, config)))


def test_histograms_that_are_wrong(threshold: list[list[Statistics]], config: Config) -> None:
    first, second = threshold[0][0], threshold[1][0]
    empty = [Histogram() for _ in first.histograms]
    fewer = [*first.histograms[:2], Histogram(first.histograms[2].counts // 2)]
    more = [Histogram(9 * one.counts) for one in second.histograms]
    for found, message in (
        (replace(first, histograms=[]), "histograms: missing in this round"),
        (replace(first, histograms=empty), r"histograms[0]: got 0 tokens, expected 128"),
        (replace(first, histograms=fewer), r"histograms[2]: differs from histograms[0], which has equal thr"),
        (replace(second, histograms=more), r"histograms[2]: got 1152 tokens, expected at most 128"),
        (replace(first, tallies={"labelled": 3}), "labelled: not expected in this round"),
    ):
        assert any(message in problem for problem in problems_of(found, config)), problems_of(found, config)


def test_images_that_are_missing_in_all_shards(threshold: list[list[Statistics]], config: Config) -> None:
    whole = join([threshold[0][0], replace(threshold[0][1], images=0, histograms=[Histogram()] * 3)])
    assert "images: got 8 and 0 unreadable ones, expected 14 of the run" in problems_of(whole, config)


def test_rounds_that_contradict_each_other(threshold: list[list[Statistics]], config: Config) -> None:
    *before, last = [join(shards) for shards in threshold]
    assert last.counts is not None
    fewer = replace(last, counts=np.minimum(last.counts, last.counts[..., 1:2]))
    assert "histograms of round 2: got" in problems_between([*before, fewer], config)[0]


def test_shards_of_unlike_arrays_do_not_join(threshold: list[list[Statistics]]) -> None:
    a, b = threshold[-1]
    for other in (replace(b, counts=None), replace(b, tallies={}), replace(b, histograms=[Histogram()])):
        with pytest.raises(PlanError, match="shards 1/2 and 2/2 have not the same arrays"):
            join([a, other])


# --- in a folder


@pytest.fixture(scope="module")
def counted(source: Source, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counted") / "stats"
    for _ in range(4):
        for shard in SHARDS:
            calibrate_shard(source.checkpoint, source.images, folder, shard)
    return folder


def test_a_plan_is_not_made_of_a_wrong_file(source: Source, counted: Path, tmp_path: Path) -> None:
    """The message names file and array."""
    stats = Path(shutil.copytree(counted, tmp_path / "stats"))
    merge_shards(source.checkpoint, stats, buckets=2)
    path = stats / "round04-shard2of2.npz"
    found = Statistics.load(path)
    found.counts = None
    found.save(path)
    with pytest.raises(PlanError, match=r"round04-shard2of2\.npz contradicts .*\n  - counts: missing"):
        merge_shards(source.checkpoint, stats, buckets=2)
    with pytest.raises(PlanError, match=r"round04-shard2of2\.npz contradicts"):
        calibrate_shard(source.checkpoint, source.images, stats, SHARDS[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("round01-shard01of2.npz", "round01-shard01of2.npz is not named as a shard's file"),
        ("round01-shard3of2.npz", "round01-shard3of2.npz is not named as a shard's file"),
        ("round01-shard0of2.npz", "round01-shard0of2.npz is not named as a shard's file"),
        ("round01-shard1of3.npz", "round 1 has shards 1/2, 2/2, 1/3; expected the same number"),
    ],
)
def test_a_shard_that_is_there_twice(
    source: Source, counted: Path, tmp_path: Path, name: str, message: str
) -> None:
    stats = Path(shutil.copytree(counted, tmp_path / "stats"))
    shutil.copy(stats / "round01-shard1of2.npz", stats / name)
    with pytest.raises(PlanError, match=message):
        merge_shards(source.checkpoint, stats)


def test_rounds_of_different_images_do_not_merge(source: Source, counted: Path, tmp_path: Path) -> None:
    """Both shards of the last round hold the same part of the images."""
    stats = Path(shutil.copytree(counted, tmp_path / "stats"))
    found = Statistics.load(stats / "round04-shard1of2.npz")
    found.shards = (Shard(2, 2),)
    found.save(stats / "round04-shard2of2.npz")
    with pytest.raises(
        PlanError, match=rf"round 4 contradicts .*\n  - images: got 16 .* expected {COUNT} of"
    ):
        merge_shards(source.checkpoint, stats)


def test_statistics_of_other_nodes_are_checked(
    source: Source, threshold: list[list[Statistics]], last: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's nodes may have another version of this package."""
    cluster = object.__new__(Cluster)
    sent = [threshold[-1]]
    monkeypatch.setattr(Cluster, "_parts", lambda *_: iter(sent[0]))
    task = Task(source, last.run, last.round, last.thresholds)
    assert cluster.gather(task).images == COUNT
    last.tallies["topk.alike"] = 99 * ONES
    sent[0] = [last, threshold[-1][1]]
    with pytest.raises(PlanError, match=r"--ray: .*round 4 contradict each other; .*\n  - tally topk.alike"):
        cluster.gather(task)
