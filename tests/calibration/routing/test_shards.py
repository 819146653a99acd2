"""A folder that shards fill: what is there, what is missing, what does not belong there."""

from __future__ import annotations

from pathlib import Path

import pytest
from calibration_setup import logits_of, run_of
from tiny_models import make_config

from morvit_deploy.calibration.routing.shards import StatisticsFolder
from morvit_deploy.calibration.routing.statistics import Shard
from morvit_deploy.errors import OutputError, PlanError

RUN = run_of()
CONFIG = make_config()


def opened(folder: Path) -> StatisticsFolder:
    return StatisticsFolder(folder, CONFIG, RUN.checkpoint)


def filled(folder: Path, *shards: Shard, round: int = 0) -> StatisticsFolder:
    """Each shard has its part of the run's images, and a logit for each of their tokens."""
    store = opened(folder)
    for shard in shards:
        images = RUN.count // shard.of
        logits = [float(shard.number)] * (images * CONFIG.num_patches)
        logits_of(logits, round, shard, images=images).save(store.path(round, shard))
    return store


def test_a_round_is_joined_when_all_are_there(tmp_path: Path) -> None:
    store = filled(tmp_path, Shard(3, 3), Shard(1, 3))
    assert store.missing(0) == [Shard(2, 3)] and store.joined(0) is None
    assert store.has(0, Shard(1, 3), RUN) and not store.has(0, Shard(2, 3), RUN)
    whole = filled(tmp_path, Shard(2, 3)).joined(0)
    assert (
        whole is not None and whole.complete and whole.histograms[0].total == RUN.count * CONFIG.num_patches
    )
    assert store.missing(0) == [] == store.missing(1) and store.joined(1) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"round01-shard{i}of3.npz" for i in (1, 2, 3)]


def test_ten_shards_are_counted_as_numbers(tmp_path: Path) -> None:
    store = filled(tmp_path, *(Shard(i, 11) for i in range(1, 11)))
    assert store.missing(0) == [Shard(11, 11)]


def test_rounds_may_be_divided_in_different_ways(tmp_path: Path) -> None:
    store = filled(tmp_path, Shard(1, 2), Shard(2, 2))
    filled(tmp_path, Shard(1, 1), round=1)
    assert store.joined(0) is not None and store.joined(1) is not None


def test_one_round_may_not(tmp_path: Path) -> None:
    store = filled(tmp_path, Shard(1, 2))
    with pytest.raises(PlanError, match=r"round 1 has shards 1/2, this one is 1/3; expected the same number"):
        store.has(0, Shard(1, 3), RUN)
    filled(tmp_path, Shard(1, 3))
    for ask in (store.joined, store.missing):
        with pytest.raises(
            PlanError, match=r"round 1 has shards 1/2, 1/3; expected the same number .*remove"
        ):
            ask(0)


def test_a_file_of_another_run(tmp_path: Path) -> None:
    store = filled(tmp_path, Shard(1, 2))
    with pytest.raises(
        PlanError, match=r"round01-shard1of2.npz belongs to another run: mode threshold and topk"
    ):
        store.has(0, Shard(1, 2), run_of("topk"))


@pytest.mark.parametrize("name", ["round02-shard1of2.npz", "round01-shard2of2.npz"])
def test_a_renamed_file(name: str, tmp_path: Path) -> None:
    store = filled(tmp_path, Shard(1, 2))
    filled(tmp_path, Shard(2, 2), round=1)
    (tmp_path / "round01-shard1of2.npz").rename(tmp_path / name)
    filled(tmp_path, Shard(1, 2))
    with pytest.raises(
        PlanError, match=f"{name} contains round 1 of shard 1/2, so it was renamed; remove it"
    ):
        store.joined(int(name[6]) - 1)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    store = filled(tmp_path, Shard(1, 1))
    for name in ("round01-shardXof2.npz", "round01-shard1of2.npz.bak", "notes.txt"):
        (tmp_path / name).write_text("mine")
    assert store.joined(0) is not None


def test_a_folder_is_made_and_a_file_is_none(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "b").make()
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"--stats: cannot create .*file: File exists"):
        opened(tmp_path / "file").make()
