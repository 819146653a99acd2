"""What a pass counts, against the reference; the same bits whatever the number of shards and of cores."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from calibration_setup import COUNT, UNIT, break_picture, save_model, save_pictures
from tiny_models import normalised

from morvit_deploy.calibration.routing import gathering
from morvit_deploy.calibration.routing.gathering import Source, Task, gather, in_order
from morvit_deploy.calibration.routing.histograms import BINS, REACH
from morvit_deploy.calibration.routing.sequence import OWN, Rounds, target
from morvit_deploy.calibration.routing.statistics import Shard, Statistics, join
from morvit_deploy.errors import AnswerError, CheckpointError, ImageError
from morvit_deploy.model.checkpoint import load_checkpoint, save_checkpoint
from morvit_deploy.model.trace import Outcome, Routing

FLOAT32 = 1e-5  # float32 router logits of a few units against float64 ones
BIN = 2 * REACH / BINS * 4  # a bin's width, at logits below 4

pytestmark = pytest.mark.usefixtures("small_units")


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "UNIT", UNIT)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(save_model(tmp_path / "model"), save_pictures(tmp_path / "images"))


def begin(source: Source, mode: str = "threshold", scales: tuple[float, ...] = (0.5, OWN)) -> Rounds:
    return Rounds(load_checkpoint(source.checkpoint).config, source.run(mode, scales), source.max_bad)


def task_of(source: Source, rounds: Rounds) -> Task:
    return Task(source, rounds.run, len(rounds.done), rounds.thresholds)


def in_shards(task: Task, of: int) -> Statistics:
    return join(gather(replace(task, shard=Shard(number, of))) for number in range(of, 0, -1))


def reference(source: Source, routing: Routing | None = None) -> Outcome:
    """The judge in float64 on all pictures."""
    folder = source.folder()
    return load_checkpoint(source.checkpoint).double()(normalised(folder.config, folder.all()), routing)


def facing(outcome: Outcome, step: int) -> Any:
    """Sorted router logits of all tokens that face a step."""
    return torch.cat([trace.decisions[step].router_logits for trace in outcome.traces]).sort().values.numpy()


def test_thresholds_are_set_one_after_the_other(source: Source) -> None:
    """Each keeps the mean share of the tokens that the thresholds before it leave, not of those that top-k leaves."""
    rounds = begin(source)
    trained = reference(source)
    for step in range(3):
        known = rounds.thresholds
        rounds.add(gather(task_of(source, rounds)))
        for i, scale in enumerate(rounds.run.scales):
            under = (*known[i], *[None] * (3 - step))
            logits = facing(reference(source, Routing(thresholds=under)), step)
            kept = target(rounds.config, scale, step, COUNT)
            assert rounds.last.histograms[i].total == len(logits)
            exact = (logits[-kept - 1] + logits[-kept]) / 2
            tau = rounds.thresholds[i][step]
            assert tau is not None
            assert abs(tau - exact) <= abs(logits[-kept] - logits[-kept - 1]) / 2 + BIN + FLOAT32
            if (
                step and scale != OWN
            ):  # top-k keeps as many as it was trained with, half as many are left here
                assert len(logits) < len(facing(trained, step))


def test_the_last_round_counts_what_the_reference_does(source: Source) -> None:
    source = replace(source, images=save_pictures(source.images.parent / "labelled", labelled=True))
    rounds = begin(source)
    while not rounds.complete:
        rounds.add(gather(task_of(source, rounds)))
    last, trained, labels = rounds.last, reference(source), np.arange(COUNT) % 10
    answers = trained.logits.argmax(dim=-1).numpy()
    assert last.counts is not None and last.counts.shape == (COUNT, 2, 3)
    assert last.trained_top1 == (answers == labels).mean()
    assert last.agreement("topk", 1) == 1.0 and last.top1("topk", 1) == last.trained_top1
    for i, taus in enumerate(rounds.thresholds):
        outcome = reference(source, Routing(thresholds=taus))
        assert last.counts[:, i].tolist() == [list(trace.counts) for trace in outcome.traces]
        found = outcome.logits.argmax(dim=-1).numpy()
        assert last.agreement("threshold", i) == (found == answers).mean()
        assert last.top1("threshold", i) == (found == labels).mean()
        for step in range(3):
            same = (outcome.depth > step) == (trained.depth > step)
            assert last.tallies["threshold.decisions"][i, step] == int(same.sum())


def test_depths_are_counted_in_one_round(tmp_path: Path) -> None:
    source = Source(
        save_model(tmp_path / "model", routing="token_choice"), save_pictures(tmp_path / "images")
    )
    rounds = begin(source, "depth", (OWN,))
    rounds.add(gather(task_of(source, rounds)))
    assert rounds.complete and rounds.last.counts is not None
    assert rounds.last.counts[:, 0].tolist() == [list(trace.counts) for trace in reference(source).traces]
    assert rounds.last.agreement("depth") == 1.0 and rounds.last.trained_top1 is None


@pytest.mark.parametrize("mode", ["threshold", "topk"])
@pytest.mark.parametrize("of", [2, 3, 9])  # of nine, five have no image
def test_shards_add_up_to_one_pass(source: Source, mode: str, of: int) -> None:
    rounds = begin(source, mode)
    while not rounds.complete:
        task = task_of(source, rounds)
        whole, parts = gather(task), in_shards(task, of)
        assert (parts.images, parts.digest, parts.bad) == (whole.images, whole.digest, whole.bad)
        for one, other in zip(whole.histograms, parts.histograms, strict=True):
            np.testing.assert_array_equal(one.counts, other.counts)
        assert (whole.counts is None) == (parts.counts is None)
        if whole.counts is not None and parts.counts is not None:
            assert sorted(whole.counts.tolist()) == sorted(parts.counts.tolist())
        for name, tally in whole.tallies.items():
            np.testing.assert_array_equal(tally, parts.tallies[name])
        rounds.add(whole)


def test_as_many_cores_as_there_are_change_no_bit(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(source, begin(source))
    one = gather(task)
    threads = torch.get_num_threads()
    monkeypatch.setattr("morvit_deploy.model.threads._SMALL_MACS", 0)  # the tiny model counts as a large one
    torch.set_num_threads(3)
    told: list[tuple[int, int]] = []  # thread, cores
    looked = set()
    tell, look = torch.set_num_threads, gathering._look
    monkeypatch.setattr(
        torch, "set_num_threads", lambda n: told.append((threading.get_ident(), n)) or tell(n)
    )
    monkeypatch.setattr(gathering, "_look", lambda *a: looked.add(threading.get_ident()) or look(*a))
    try:
        many = gather(task)
        assert torch.get_num_threads() == 3
    finally:
        tell(threads)
    assert threading.get_ident() not in looked and all((thread, 1) in told for thread in looked)
    np.testing.assert_array_equal(one.histograms[0].counts, many.histograms[0].counts)
    assert one.digest == many.digest


def test_progress_ends_at_one(source: Source) -> None:
    told: list[float] = []
    gather(replace(task_of(source, begin(source)), shard=Shard(2, 2)), told.append)
    assert told == sorted(told) and len(told) == 2 and told[-1] == 1.0


# --- bad input


def test_unreadable_images_are_named_without_the_folder(source: Source) -> None:
    """And sorted, in whatever order they are listed, so that shards name them alike."""
    source = replace(source, max_bad=2)
    listed = [f"{number:03}.png,1" for number in reversed(range(COUNT))]
    (source.images / "labels.csv").write_text("\n".join(["file,label", *listed]))
    names = [break_picture(source.images, number) for number in (9, 2)]
    statistics = gather(task_of(source, begin(source)))
    assert statistics.images == COUNT - 2
    assert [name for name, _ in statistics.bad] == sorted(names)
    assert statistics.bad[0][1].startswith("002.png is not an image")


def test_more_unreadable_images_than_allowed(source: Source) -> None:
    for number in (2, 3):
        break_picture(source.images, number)
    for allowed in (0, 1):
        given = replace(source, max_bad=allowed)
        with pytest.raises(ImageError, match=f"unreadable images: 2 so far, --max-bad allows {allowed}"):
            gather(task_of(given, begin(given)))


def test_a_unit_without_a_readable_image(source: Source) -> None:
    source = replace(source, max_bad=UNIT)
    task = task_of(source, begin(source))
    whole = gather(task)
    for number in range(UNIT):
        break_picture(source.images, number)
    left = gather(task)
    assert (whole.images, left.images) == (COUNT, COUNT - UNIT)


def test_scores_that_are_not_finite_are_an_error(source: Source, tmp_path: Path) -> None:
    """Weights are finite and products overflow: a failed check, in every round."""
    model = load_checkpoint(source.checkpoint)
    model.head_layers()[-1].weight.mul_(1e37)
    model.norm.weight.mul_(1e4)
    save_checkpoint(model, tmp_path / "overflowing")
    other = replace(source, checkpoint=tmp_path / "overflowing")
    with pytest.raises(
        AnswerError, match=r"logits of the calibrated model: got NaN or Inf in \d+ of 40, expected"
    ):
        gather(task_of(other, begin(other, "topk")))


def test_other_images_than_the_run_began_with(source: Source) -> None:
    task = task_of(source, begin(source))
    (source.images / "003.png").unlink()
    with pytest.raises(ImageError, match="contains other images than at the start of the run"):
        gather(task)


def test_another_checkpoint_than_the_run_began_with(source: Source, tmp_path: Path) -> None:
    task = task_of(source, begin(source))
    other = replace(source, checkpoint=save_model(tmp_path / "other", seed=1))
    with pytest.raises(CheckpointError, match="sha256 differs from that of this run"):
        gather(replace(task, source=other))


def test_a_run_is_known_by_what_is_read(source: Source) -> None:
    run = source.run("threshold", (OWN,))
    assert replace(source, max_bad=3, seed=1).run("threshold", (OWN,)) == run
    assert replace(source, limit=COUNT, seed=1).run("threshold", (OWN,)) == run  # all of them
    assert replace(source, upscale=True).run("threshold", (OWN,)) != run
    assert replace(source, exif=True).run("threshold", (OWN,)) != run
    few = [replace(source, limit=5, seed=seed).run("threshold", (OWN,)) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2] and few[0].count == 5
    (source.images / "labels.csv").write_text(
        "\n".join(["file,label", *(f"{i:03}.png,1" for i in range(COUNT))])
    )
    assert source.run("threshold", (OWN,)) != run


# --- units in parallel


@pytest.mark.parametrize("workers", [1, 3])
def test_in_order_and_only_so_far_ahead(workers: int) -> None:
    drawn: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            assert threading.current_thread() is threading.main_thread()
            drawn.append(number)
            yield number

    for done, squared in enumerate(in_order(lambda number: number**2, numbers(), workers)):
        assert squared == done**2
        assert len(drawn) <= done + 1 + workers
    assert len(drawn) == 20


def test_an_error_in_a_worker_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda number: 1 / number, iter([1, 2, 0, 3]), 2))
