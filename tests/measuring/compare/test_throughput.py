"""Larger batches: which are run, where the search ends, and what a row says about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bucket_plans import EXPERT, threshold_ladder
from comparisons import comparison, conv_graph, row

import morvit_deploy as md
from morvit_deploy.agent.serving import Rounds
from morvit_deploy.errors import ConfigError, TargetError
from morvit_deploy.measuring.compare import throughput as searching
from morvit_deploy.measuring.compare.candidates import BASELINE, Candidate
from morvit_deploy.measuring.compare.results.rows import Throughput
from morvit_deploy.measuring.compare.results.views import throughput_table
from morvit_deploy.measuring.compare.throughput import check_batches, throughput
from morvit_deploy.measuring.cpu.batches import InBatches
from morvit_deploy.timing.loop import Stages
from morvit_deploy.timing.samples import Block

QUICK: dict[str, Any] = {"threads": 1, "runs": 3, "blocks": 2, "warmup": 1, "starts": 1}
ONE = row("a", 10.0, 10.0)  # 100 images per second at batch 1


class FakeWorker:
    """A process whose runs of a batch take what `ms` says, and which needs `mib` a picture."""

    def __init__(self, ms: dict[int, float], mib: float = 1.0) -> None:
        self.ms, self.mib, self.tried, self.closed, self.peak = ms, mib, list[int](), False, 100.0

    def run_batch(self, batch: int, runs: int, warmup: int) -> Block:
        if batch not in self.ms:
            raise TargetError("the process was killed")
        self.tried += [batch] if runs else []
        self.peak = 100.0 + batch * self.mib
        return Block((self.ms[batch],) * runs, (self.ms[batch],) * warmup)

    def memory_mib(self) -> dict[str, float]:
        return {"peak": self.peak}

    def close(self) -> None:
        self.closed = True


def searched(worker: FakeWorker, *batches: int, stream: range | None = None) -> Throughput:
    fake: Any = worker
    candidate = Candidate(
        "a", BASELINE, "onnxruntime", "fp32", 224, None, None, None, lambda threads: fake, Path("none"), stream,
        open_batches=lambda threads: fake,
    )  # fmt: skip  # three lines read better than fourteen
    found = throughput(candidate, ONE, batches, 1, Stages())
    assert worker.closed
    return found


def test_the_search_ends_after_two_slower_batches() -> None:
    worker = FakeWorker({2: 18.0, 4: 40.0, 8: 100.0, 16: 160.0, 32: 320.0})
    found = searched(worker, 1, 2, 4, 8, 16, 32)
    assert worker.tried == [2, 4, 8], "4 and 8 are slower than 2"
    assert found.ended == "slower from 4 on"
    assert replace(ONE, throughput=found).best_batch == 2


def test_one_slower_batch_does_not_end_it() -> None:
    worker = FakeWorker({2: 30.0, 4: 20.0, 8: 100.0})
    found = searched(worker, 1, 2, 4, 8)
    assert worker.tried == [2, 4, 8] and found.ended == ""
    best = replace(ONE, throughput=found)
    assert best.best_batch == 4 and best.by_batch[4] == pytest.approx(200)


def test_short_memory_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(available=100 * 2**20)
    monkeypatch.setattr(searching.psutil, "virtual_memory", lambda: free)
    worker = FakeWorker({2: 10.0, 4: 10.0, 8: 10.0}, mib=10.0)
    found = searched(worker, 1, 2, 4, 8)  # batch 8 would add 80 MiB, and half as much must be left over
    assert worker.tried == [2, 4] and found.ended == "batch 8 would need more memory than is free"


def test_an_error_ends_it_and_what_was_measured_stays() -> None:
    found = searched(FakeWorker({2: 10.0}), 1, 2, 4)
    assert [*found.blocks] == [2] and found.ended == "the process was killed"


def test_adaptive_bundles_run_whole_passes() -> None:
    found = searched(FakeWorker({2: 500.0, 32: 500.0}), 1, 2, 32, stream=range(64))
    assert len(found.blocks[2].ms) == 32 and len(found.blocks[32].ms) == 2


def test_without_larger_batches_batch_1_is_the_best() -> None:
    assert searching.throughput(
        Candidate("a", BASELINE, "eager", "fp32", 8, None, None, None, lambda n: pytest.fail(), Path("none"),
                  one_at_a_time="the file takes one picture at a time"),
        ONE, (1, 2), 1, Stages(),
    ) == Throughput({}, "the file takes one picture at a time")  # fmt: skip
    assert ONE.best_batch == 1 and ONE.by_batch == {1: pytest.approx(100)}


@pytest.mark.parametrize("batches", [(), (0, 1), (2048,)])
def test_batches_that_cannot_be(batches: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="expected numbers of pictures from 1 to 1024"):
        check_batches(batches)
    assert check_batches((8, 2, 8)) == (2, 8)


def test_pictures_at_once_are_those_of_the_rounds(tmp_path: Path) -> None:
    pixels = np.arange(5 * 12, dtype=np.uint8).reshape(5, 1, 2, 2, 3)
    np.save(tmp_path / "p.npy", pixels)
    batches = InBatches(Rounds(str(tmp_path / "p.npy")), 2)
    assert len(batches) == 3 and batches[0].shape == (2, 2, 2, 3)
    assert (batches[1] == pixels[2:4, 0]).all()
    assert (batches[2] == pixels[[4, 0], 0]).all(), "the last is filled from the start"


def test_bundles_and_graphs_in_batches(exported: Callable[..., Path], tmp_path: Path) -> None:
    dynamic, fixed = exported(EXPERT, batch="dynamic"), exported(EXPERT)
    any_batch, one = conv_graph(tmp_path / "any.onnx", batch="n"), conv_graph(tmp_path / "one.onnx")
    result = md.compare([dynamic, fixed], baselines=[any_batch, one], batches=(1, 2, 3), **QUICK)
    tried = [[*found.throughput.blocks] if found.throughput else None for found in result.measured]
    assert tried == [[2, 3], [], [2, 3], []]
    ended = [found.throughput and found.throughput.ended for found in result.measured]
    assert ended[1] == "exported for batch 1" and ended[3] == "the file takes one picture at a time"
    found = result.as_dict()["rows"][0]
    assert [*found["throughput"]["batches"]] == ["2", "3"] and found["best_batch"] in (1, 2, 3)
    assert found["best_images_per_s"] >= found["images_per_s"]
    assert result.conditions["batches"] == [1, 2, 3]
    table = throughput_table(result)
    assert table.columns == ("model", "batch 1", "batch 2", "batch 3", "best", "larger batches")
    assert [cells[2] for cells in table.rows][1::2] == ["–", "–"]


def test_an_adaptive_bundle_of_dynamic_batch(exported: Callable[..., Path]) -> None:
    bundle = exported(EXPERT, plan=threshold_ladder(), batch="dynamic")
    (found,) = md.compare(bundle, batches=(1, 4), **QUICK).measured
    assert found.throughput is not None
    assert len(found.throughput.blocks[4].ms) % 16 == 0, "64 pictures are 16 batches"
    assert found.throughput.blocks[4].bucket


def test_the_speed_table_has_the_best_and_no_table_is_empty() -> None:
    best = replace(ONE, throughput=Throughput({4: Block((20.0, 20.0))}))
    report = comparison(best, row("b", 10.0, 10.0)).report()
    assert [cells[-1] for cells in report.parts[0].rows] == ["200 at 4", "100 at 1"]  # type: ignore[union-attr]
    assert "Throughput" not in [part.title for part in comparison(ONE).report().parts]
