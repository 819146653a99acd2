"""The measuring loop with a made-up device that writes down what it is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from morvit_deploy.errors import ParityError, TargetError
from morvit_deploy.timing.loop import (
    MAX_RUNS,
    Amount,
    CallLane,
    Calls,
    Lane,
    Measurer,
    Stages,
    measure,
    parts_of,
)
from morvit_deploy.timing.result import Measured, warnings_about
from morvit_deploy.timing.samples import Block, Start

FEW = Amount(runs=10, blocks=2, warmup=1, starts=2)


@dataclass
class Found:
    """A parity that is made up."""

    agrees: bool = True
    problem: str = "b returns logits 0.5 away"

    def as_dict(self) -> dict[str, Any]:
        return {"agrees": self.agrees}


@dataclass
class Fake(Measurer[Lane]):
    """Every run takes `ms`; `wrong` names lanes that return something else."""

    ms: float = 2.0
    wrong: tuple[str, ...] = ()
    log: list[str] = field(default_factory=list)

    def conditions(self) -> dict[str, Any]:
        self.log.append("conditions")
        return {"machine": "made up"}

    def prepare(self, lane: Lane) -> Start:
        self.log.append(f"prepare {lane.name}")
        return Start(3.0, 2.0, 1.0, None)

    def returns(self, lane: Lane) -> Found:
        self.log.append(f"returns {lane.name}")
        return Found(lane.name not in self.wrong)

    def look(self, lane: Lane, runs: int, warmup: int) -> Block:
        self.log.append(f"look {lane.name} {runs} {warmup}")
        return Block((self.ms,) * runs, (9.0,) * warmup)

    def settle(self, lane: Lane, runs: int, warmup: int) -> None:
        self.log.append(f"settle {lane.name}")

    def run(self, lane: Lane, runs: int, warmup: int) -> Block:
        self.log.append(f"run {lane.name} {runs} {warmup}")
        return Block((self.ms,) * runs, (9.0,) * warmup)

    def beside(self, lane: Lane, number: int) -> None:
        self.log.append(f"beside {lane.name} {number}")


def lanes(*names: str) -> list[Lane]:
    return [Lane(name=name) for name in names]


def test_parity_comes_first_and_blocks_in_turn() -> None:
    device, both = Fake(), lanes("a", "b")
    found = measure(device, both, FEW, Stages())
    assert device.log == [
        *("conditions", "prepare a", "prepare b", "prepare a", "returns a", "prepare b", "returns b"),
        *("settle a", "settle b"),
        *("run a 10 1", "beside a 1", "run b 10 1", "beside b 1"),
        *("run a 10 1", "beside a 2", "run b 10 1", "beside b 2"),
    ]
    assert found == {"machine": "made up", "runs_per_block": 10}
    assert [len(lane.starts) for lane in both] == [2, 2]


def test_lanes_take_turns_in_another_order_each_time() -> None:
    device, all_of_them = Fake(), lanes(*"abcdefgh")
    amount = Amount(runs=10, blocks=6, warmup=0, starts=1)
    measure(device, all_of_them, amount, Stages(), shuffle=Random(0))
    ran = [entry.split()[1] for entry in device.log if entry.startswith("run")]
    orders = ["".join(ran[start : start + 8]) for start in range(0, 48, 8)]
    assert all(sorted(order) == [*"abcdefgh"] for order in orders) and len({*orders}) == 6
    assert all(len(lane.blocks) == 6 for lane in all_of_them)


def test_nothing_is_timed_where_parity_fails() -> None:
    device, both = Fake(wrong=("b",)), lanes("a", "b")
    with pytest.raises(ParityError, match=r"b returns logits 0\.5 away"):
        measure(device, both, FEW, Stages())
    assert device.log[-1] == "returns b"
    assert not [entry for entry in device.log if entry.startswith(("look", "run"))]
    assert not any(lane.blocks for lane in both)


def test_samples_are_raw_and_the_warm_up_is_kept_apart() -> None:
    (lane,) = own = lanes("a")
    measure(Fake(), own, FEW, Stages())
    assert lane.blocks == [Block((2.0,) * 10, (9.0,))] * 2


@pytest.mark.parametrize(("ms", "runs"), [(1.0, MAX_RUNS), (10.0, 50), (400.0, 10)])
def test_the_slowest_decides_how_many_runs_a_block_has(ms: float, runs: int) -> None:
    device = Fake(ms=ms)
    assert measure(device, lanes("a"), Amount(blocks=1, starts=1), Stages())["runs_per_block"] == runs
    assert "look a 5 3" in device.log and f"run a {runs} 3" in device.log


def test_a_batch_takes_as_many_images() -> None:
    amount = Amount(runs=10, warmup=3).for_batch(4)
    assert (amount.runs, amount.warmup, amount.least, amount.look) == (3, 1, 3, 2)


@pytest.mark.parametrize("wrong", [{"runs": 9}, {"blocks": 0}, {"warmup": -1}, {"starts": 0}], ids=str)
def test_too_little_is_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(TargetError, match=f"{name}: got {wrong[name]} .*expected at least"):
        Amount(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["runs", "blocks", "warmup", "starts"])
def test_an_amount_for_which_no_reply_can_be_waited_is_a_typing_error(name: str) -> None:
    with pytest.raises(TargetError, match=f"{name}: got {10**22} .*expected at most 1,000,000"):
        Amount(**{name: 10**22})  # type: ignore[arg-type]


def test_every_part_is_reported() -> None:
    stages, shares = list[str](), list[float]()
    measure(Fake(), lanes("a", "b"), FEW, Stages(stages.append, shares.append, parts_of(2, FEW)))
    assert shares == [part / 8 for part in range(1, 9)]
    assert stages[0] == "start 1 of 2: a" and stages[-1] == "block 2 of 2: b"


def test_whole_blocks_stay_when_the_device_is_lost() -> None:
    class Lost(Fake):
        def run(self, lane: Lane, runs: int, warmup: int) -> Block:
            if len(lane.blocks) == 1 and lane.name == "b":
                raise TargetError("gone")
            return super().run(lane, runs, warmup)

    both = lanes("a", "b")
    with pytest.raises(TargetError, match="gone"):
        measure(Lost(), both, FEW, Stages())
    assert [len(lane.blocks) for lane in both] == [2, 1]


def test_functions_are_timed_by_the_clock() -> None:
    calls: list[int] = []
    lane = CallLane(name="f", call=lambda: calls.append(1))
    measure(Calls(), [lane], Amount(3, 2, 1, starts=1, least=1), Stages())
    assert len(calls) == 2 * (3 + 1)
    assert [(len(block.ms), len(block.warmup_ms)) for block in lane.blocks] == [(3, 1)] * 2
    assert all(ms > 0 for block in lane.blocks for ms in block.ms)


def test_noise_is_a_warning() -> None:
    quiet = {"load_average_before": None, "cpu_used_before_percent": None, "machine": {"cores": 2}}
    steady = Measured("a", 1, (Block((1.0,)), Block((1.1,))))
    drifting = Measured("b", 1, (Block((1.0,)), Block((1.5,), others_percent=90.0)))
    assert warnings_about(quiet, [steady]) == ()
    busy, drift = warnings_about(quiet, [drifting])
    assert busy.startswith("other processes used 45 %")
    assert drift.startswith("b: a block differs from the first by 50%")
    many = [Measured(name, 1, (Block((1.0,)), Block((1.0 + i / 4,)))) for i, name in enumerate("vwxyz")]
    assert [text.partition(":")[0] for text in warnings_about(quiet, many[:4])] == ["w", "x", "y"]
    (all_of_them,) = warnings_about(quiet, many)
    assert all_of_them.startswith(
        "4 of 5 have a block that differs from their first, by 25% to 100% (z): heat"
    )
    (load,) = warnings_about(quiet | {"load_average_before": [2.5]}, [steady])
    assert load == "the machine was busy before the start: load average 2.50 over 2 cores"


def test_a_repr_is_one_line() -> None:
    assert (
        repr(Measured("b", 2, (Block((1.0, 3.0)),)))
        == "Measured('b', batch 2, p50 2 ms, p90 2.8 ms, p99 2.98 ms, 1 block)"
    )
    assert repr(Measured("b", 1, ())) == "Measured('b', batch 1, 0 blocks)"
