"""A bundle that chooses buckets: figures of made-up samples, and a small measurement. Nothing is timed here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket_plans import EXPERT, OVERFLOW, SHARES, TOKEN, depth_ladder, threshold_ladder

from morvit_deploy import open_bundle
from morvit_deploy.measuring.bench import bench
from morvit_deploy.measuring.core.inputs import STREAM, Source, prepare
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cpu.process import Worker
from morvit_deploy.measuring.mix.latency import Pair
from morvit_deploy.measuring.mix.mix import (
    ALONE,
    AT_MOST,
    IN_A_ROW,
    IN_STREAM,
    ONE_BUCKET,
    WITH_DISPATCH,
    Mix,
)
from morvit_deploy.measuring.mix.views import mix_tables
from morvit_deploy.measuring.views import bench_report
from morvit_deploy.timing.arithmetic import OVERFLOWED, after_overflow
from morvit_deploy.timing.loop import MIN_RUNS
from morvit_deploy.timing.samples import Block, percentiles

QUICK: dict[str, Any] = {"threads": 1, "runs": MIN_RUNS, "blocks": 2, "warmup": 1, "starts": 1}


def block(*runs: tuple[float, str]) -> Block:
    """Runs of one image: milliseconds and kind of answer."""
    return Block(
        ms=tuple(ms for ms, _ in runs),
        bucket=tuple(("full" if kind == OVERFLOWED else kind,) for _, kind in runs),
        overflow=tuple((kind == OVERFLOWED,) for _, kind in runs),
    )


def alone(*ms: float) -> tuple[Block, ...]:
    """A block for each number."""
    return tuple(Block((number,)) for number in ms)


MADE = Mix(
    plan=threshold_ladder(),
    batch=1,
    kinds=("b0", "b0", "b0", OVERFLOWED),
    stream=(block((2.0, "b0"), (2.5, "b0"), (9.0, OVERFLOWED)), block((3.0, "b0"), (11.0, OVERFLOWED))),
    alone={"b0": alone(2.0, 2.0), "b1": alone(4.0, 4.0), "full": alone(6.0, 8.0)},
    repeated={
        "b0": Pair((block((2.25, "b0")), block((2.75, "b0"))), alone(2.0, 2.0)),
        OVERFLOWED: Pair((block((9.0, OVERFLOWED)), block((12.0, OVERFLOWED))), alone(6.0, 8.0)),
    },
    orders=None,
)
EXACT = replace(
    MADE,
    plan=depth_ladder(),
    kinds=("b0",),
    stream=(),
    alone={"b0": alone(2.0), "full": alone(6.0)},
    repeated={},
)


class TestFigures:
    def test_own_samples_are_used_where_there_are_any(self) -> None:
        assert MADE.latency_of["b0"].source == IN_STREAM
        assert MADE.latency_of["b0"].samples_ms == (2.0, 2.5, 3.0)
        assert MADE.latency_of[OVERFLOWED].samples_ms == (9.0, 11.0)

    def test_runs_in_a_row_stand_in_for_a_stream_that_met_none(self) -> None:
        answer = replace(MADE, stream=(block((9.0, OVERFLOWED)),)).latency_of["b0"]
        assert (answer.source, answer.samples_ms) == (IN_A_ROW, (2.25, 2.75))

    def test_a_bucket_that_never_answered_is_measured_alone_plus_dispatch(self) -> None:
        answer = MADE.latency_of["b1"]
        assert (answer.source, answer.samples_ms) == (WITH_DISPATCH, (4.5, 4.5))  # dispatch to b0 took 0.5

    def test_without_any_dispatch_cost_it_is_the_bucket_alone(self) -> None:
        answer = replace(MADE, repeated={OVERFLOWED: MADE.repeated[OVERFLOWED]}).latency_of["full"]
        assert (answer.source, answer.samples_ms) == (ALONE, (6.0, 8.0))

    def test_dispatch_is_the_bundle_minus_the_bucket_alone(self) -> None:
        found = MADE.dispatch("b0")
        assert found is not None
        assert (found.per_block_ms, found.median_ms, found.median_percent) == ((0.25, 0.75), 0.5, 25.0)
        assert MADE.dispatch("b1") is None

    def test_misprediction_is_the_overflowed_minus_full_alone(self) -> None:
        assert MADE.misprediction is not None
        assert MADE.misprediction["ms"] == 3.5
        assert MADE.misprediction["from"] == IN_A_ROW

    def test_misprediction_of_parts_is_a_bound(self) -> None:
        none = replace(MADE, stream=(), repeated={}, kinds=("b0",))
        predicted_ms = (SHARES["b0"] * 2 + SHARES["b1"] * 4) / (SHARES["b0"] + SHARES["b1"])
        assert none.misprediction == {"ms": predicted_ms, "from": AT_MOST}
        answer = none.latency_of[OVERFLOWED]
        assert (answer.source, answer.samples_ms) == (AT_MOST, (6 + predicted_ms, 8 + predicted_ms))

    def test_nothing_is_predicted_where_depths_are_known(self) -> None:
        assert EXACT.misprediction is None
        assert OVERFLOWED not in EXACT.latency_of
        assert EXACT.calibrated_overflow == 0

    def test_over_the_calibrated_mix(self) -> None:
        assert MADE.calibrated is not None
        assert MADE.calibrated.shares == after_overflow(SHARES, OVERFLOW, "full")
        left = 1 - OVERFLOW / 0.8
        expected = 0.5 * left * 2.5 + 0.3 * left * 4.5 + 0.2 * 7.5 + OVERFLOW * 10
        assert MADE.calibrated.expected_ms == pytest.approx(expected)
        assert MADE.calibrated.p99_ms == 11.0

    def test_over_the_fed_mix(self) -> None:
        assert MADE.fed.shares == {"b0": 0.75, OVERFLOWED: 0.25}
        assert MADE.fed.overflow == 0.25
        assert MADE.fed.expected_ms == 0.75 * 2.5 + 0.25 * 10
        assert MADE.fed.p99_ms == 11.0

    @pytest.mark.parametrize("told", [None, {}, {"overflow": "much"}, {"overflow": 2}], ids=str)
    def test_an_overflow_that_the_plan_does_not_say_is_not_guessed(self, told: Any) -> None:
        silent = replace(MADE, plan=MADE.plan.model_copy(update={"calibration": told}))
        assert silent.calibrated is not None
        assert silent.calibrated.overflow is None
        assert OVERFLOWED not in silent.calibrated.shares
        assert "without mispredictions" in silent.calibrated.note

    def test_a_mix_that_the_plan_does_not_say_is_none(self) -> None:
        assert EXACT.calibrated is None
        assert EXACT.as_dict()["calibrated"] is None

    def test_switching_is_a_difference_of_kinds_in_equal_parts(self) -> None:
        changing = block(
            (2.0, "b0"), (10.0, "full"), (2.0, "b0"), (10.0, "full"), (90.0, "b0"), (10.0, "full")
        )
        in_groups = block((1.0, "b0"), (1.5, "b0"), (2.0, "b0"), (8.0, "full"), (9.5, "full"), (9.5, "full"))
        found = replace(MADE, orders=Pair((changing,), (in_groups,))).switch
        assert found is not None
        assert found["per_block_ms"] == [(2 + 10) / 2 - (1.5 + 9.5) / 2]

    def test_switching_costs_nothing_where_one_bucket_is_met(self) -> None:
        assert MADE.switch == {"ms": 0.0, "note": ONE_BUCKET}

    def test_several_images_a_run_have_no_latency_by_kind(self) -> None:
        several = replace(MADE, batch=4)
        assert several.latency_of == {}
        assert (several.misprediction, several.switch, several.fed.expected_ms) == (None, None, None)

    def test_every_figure_is_json(self) -> None:
        for mix in (MADE, replace(MADE, batch=4), EXACT):
            json.dumps(mix.as_dict(), allow_nan=False)

    @pytest.mark.parametrize("batch", [1, 4])
    def test_tables(self, batch: int) -> None:
        for table in mix_tables("a", replace(MADE, batch=batch)):
            assert {len(row) for row in table.rows} == {len(table.columns)}


@pytest.fixture(scope="module")
def graph(exported: Callable[..., Path]) -> Path:
    """Self-dispatching, one image a run."""
    return exported(EXPERT, plan=threshold_ladder())


@pytest.fixture(scope="module")
def host(exported: Callable[..., Path]) -> Path:
    """A stem and trunks of the token_choice model, of dynamic batch."""
    return exported(TOKEN, plan=depth_ladder(), batch="dynamic", dispatch="host")


@pytest.fixture(scope="module")
def measured(graph: Path) -> BenchResult:
    """One image a run."""
    return bench(graph, **QUICK)


def mix_of(result: BenchResult) -> Mix:
    """Of the first bundle."""
    mix = result.measured[0].mix
    assert mix is not None
    return mix


class TestMeasurement:
    def test_the_mix_is_that_of_the_bundle(self, measured: BenchResult, graph: Path, tmp_path: Path) -> None:
        subject = prepare(graph, Source(), tmp_path / "pixels.npy")
        with open_bundle(graph) as session:
            answers = session.run(np.load(subject.pixels)[:, 0])
        names = np.array(list(SHARES))[answers["bucket"]]
        kinds = np.where(answers["overflow"], OVERFLOWED, names)
        assert mix_of(measured).kinds == tuple(kinds)
        assert set(kinds) == {*SHARES, OVERFLOWED}  # or this test would see little
        assert mix_of(measured).fed.overflow == answers["overflow"].mean()

    def test_a_block_of_the_stream_is_a_pass_over_all_pictures(self, measured: BenchResult) -> None:
        for taken in measured.measured[0].blocks:
            assert taken.kinds == list(mix_of(measured).kinds)
            assert len(taken.ms) == STREAM

    def test_runs_in_a_row_are_of_one_kind(self, measured: BenchResult) -> None:
        for kind, pair in mix_of(measured).repeated.items():
            assert len(pair.ones) == len(pair.others) == QUICK["blocks"]
            assert {answer for taken in pair.ones for answer in taken.kinds} == {kind}
            assert all(not taken.bucket for taken in pair.others)  # a bucket alone chooses none

    def test_orders_are_the_same_pictures(self, measured: BenchResult) -> None:
        orders = mix_of(measured).orders
        assert orders is not None
        for changing, in_groups in zip(orders.ones, orders.others, strict=True):
            assert changing.kinds == [*SHARES] * 4
            assert in_groups.kinds == [kind for kind in SHARES for _ in range(4)]

    def test_a_forced_bucket_runs_every_image(self, graph: Path, tmp_path: Path) -> None:
        subject = prepare(graph, Source(), tmp_path / "pixels.npy")
        with open_bundle(graph, bucket="b0") as session:
            too_small = session.run(np.load(subject.pixels)[:, 0])["overflow"]
        with Worker(graph, "onnx", subject.pixels, 1, "b0") as worker:
            taken = worker.run(len(subject.rounds), 0, subject.rounds)
        assert taken.bucket == ()
        assert [flag for (flag,) in taken.overflow] == too_small.tolist()
        assert 0 < too_small.sum() < len(too_small)

    def test_rounds_are_run_in_the_order_asked_for(
        self, graph: Path, tmp_path: Path, measured: BenchResult
    ) -> None:
        subject, kinds = prepare(graph, Source(), tmp_path / "pixels.npy"), mix_of(measured).kinds
        order = [5, 3, 5, 0]
        with Worker(graph, "onnx", subject.pixels, 1) as worker:
            assert worker.run(6, 1, order).kinds == [kinds[i] for i in (*order, 5, 3)]

    def test_json_keeps_every_sample_with_its_bucket(self, measured: BenchResult) -> None:
        data = json.loads(json.dumps(measured.as_dict(), allow_nan=False))
        (bundle,) = data["bundles"]
        for taken in bundle["blocks"]:
            assert len(taken["ms"]) == len(taken["bucket"]) == len(taken["overflow"])
            assert {name for run in taken["bucket"] for name in run} == set(SHARES)
        mix = bundle["mix"]
        assert set(mix["buckets"]) == set(SHARES)
        for bucket in mix["buckets"].values():
            samples = [ms for taken in bucket["alone_blocks"] for ms in taken["ms"]]
            assert bucket["alone_ms"] == percentiles(samples)
            assert len(bucket["dispatch"]["per_block_ms"]) == QUICK["blocks"]
        assert mix["calibrated"]["overflow"] == OVERFLOW
        assert {len(blocks) for blocks in mix["orders"].values()} == {QUICK["blocks"]}
        assert len(mix["overflowed"]["full_alone_blocks"]) == QUICK["blocks"]

    def test_the_report_shows_it(self, measured: BenchResult) -> None:
        titles = [part.title for part in bench_report(measured).parts]
        assert {"Buckets of bundle, one image a run", "Over a mix", "Dispatch overhead per image"} <= set(
            titles
        )

    def test_a_bundle_of_one_bucket_has_none(self, tiny_bundle: Path) -> None:
        alone_there = bench(tiny_bundle, **QUICK)
        assert alone_there.measured[0].mix is None
        assert "mix" not in alone_there.as_dict()["bundles"][0]
        assert set(alone_there.as_dict()["bundles"][0]["blocks"][0]) == {"ms", "warmup_ms", "others_percent"}

    def test_against_a_bundle_of_one_bucket_means_are_compared(self, graph: Path, tiny_bundle: Path) -> None:
        both = bench([graph, tiny_bundle], **QUICK)
        one, other = (taken.blocks for taken in both.measured)
        expected = [b.mean_ms / a.mean_ms for a, b in zip(one, other, strict=True)]
        assert both.ratios[0].per_block == pytest.approx(expected)
        assert both.ratios[0].statistic == "mean"

    def test_batches_tell_the_bucket_of_each_image(self, host: Path, image_files: list[Path]) -> None:
        result = bench(host, batch=4, images=image_files[0].parent, **QUICK)
        mix = mix_of(result)
        assert len(mix.kinds) == len(image_files)  # the second batch is filled up
        for taken in result.measured[0].blocks:
            assert len(taken.ms) == MIN_RUNS
            assert {len(run) for run in taken.bucket} == {4}
            assert not taken.overflow
        assert set(mix.alone) == {"b0", "full"}
        assert mix.repeated == {}
        assert sum(mix.fed.shares.values()) == pytest.approx(1)

    def test_few_pictures_are_passed_over_several_times(self, host: Path, image_files: list[Path]) -> None:
        result = bench(host, images=image_files[0].parent, **QUICK)
        assert [len(taken.ms) for taken in result.measured[0].blocks] == [12, 12]
        assert mix_of(result).misprediction is None
