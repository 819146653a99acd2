"""The measurement loop: parity first, separate warm-up, alternating blocks. No torch.

A block is several consecutive runs of one lane; the lanes take turns. Alternating single runs would evict each
other's weights from the cache; measuring one lane after the other would expose them to different clocks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Protocol, TypeVar

from morvit_deploy.errors import ParityError, TargetError
from morvit_deploy.timing.samples import Block, Start

MIN_RUNS, MAX_RUNS = 10, 300  # runs a block
BLOCK_MS = 500.0  # target duration of a block of the slowest lane, within the two limits above
LARGEST = 1_000_000  # of each amount; the time that a device has for its reply grows with it, and has a limit
BLOCKS, WARMUP, STARTS = 10, 3, 5
LOOK = 5  # runs of the first look at each lane's speed


@dataclass(frozen=True)
class Amount:
    """How much to measure; `runs` None means as many a block as `block_ms` allows, the same for all."""

    runs: int | None = None
    blocks: int = BLOCKS
    warmup: int = WARMUP  # runs before each block, stored separately
    starts: int = STARTS  # how often each lane is loaded
    least: int = MIN_RUNS  # runs a block
    most: int = MAX_RUNS
    block_ms: float = BLOCK_MS
    look: int = LOOK

    def __post_init__(self) -> None:
        """TargetError for an amount that is too small, or so large that it is a typing error."""
        for name, what, least in (
            ("runs", "runs a block", self.least),
            ("blocks", "blocks", 1),
            ("warmup", "warm-up runs", 0),
            ("starts", "starts", 1),
        ):
            number = getattr(self, name)
            if number is not None and number < least:
                why = "; a shorter block times a cold cache" if name == "runs" else ""
                raise TargetError(f"{name}: got {number} {what}, expected at least {least}{why}")
            if number is not None and number > LARGEST:
                raise TargetError(f"{name}: got {number} {what}, expected at most {LARGEST:,}")

    def for_batch(self, batch: int) -> Amount:
        """The same amount of images in runs of `batch` images each."""
        return replace(
            self,
            runs=None if self.runs is None else math.ceil(self.runs / batch),
            warmup=math.ceil(self.warmup / batch),
            least=math.ceil(self.least / batch),
            look=math.ceil(self.look / batch),
        )

    def fitting(self, slowest_ms: float) -> int:
        """Runs a block for this median of the slowest."""
        return min(self.most, max(self.least, math.ceil(self.block_ms / slowest_ms)))


@dataclass
class Stages:
    """Reports the stage and, after each part of the work, the share done, 0 to 1."""

    stage: Callable[[str], None] = lambda stage: None
    share: Callable[[float], None] = lambda share: None
    total: int = 1
    done: int = 0

    @contextmanager
    def part(self, stage: str) -> Iterator[None]:
        """One of `total` parts."""
        self.stage(stage)
        yield
        self.done += 1
        self.share(self.done / self.total)


class Parity(Protocol):
    """Comparison of a device's results with those expected."""

    @property
    def agrees(self) -> bool:
        """Does the device compute the same model?"""

    @property
    def problem(self) -> str:
        """The error message if it does not."""

    def as_dict(self) -> Mapping[str, Any]:
        """For reports."""


@dataclass(kw_only=True)
class Lane:
    """One thing that is timed, with its samples so far."""

    name: str
    batch: int = 1  # images a run
    starts: list[Start] = field(default_factory=list)
    parity: Parity | None = None
    blocks: list[Block] = field(default_factory=list)


L = TypeVar("L", bound=Lane)
L_contra = TypeVar("L_contra", bound=Lane, contravariant=True)


class Measurer(Protocol[L_contra]):
    """What the loop needs of a device; the last three methods have defaults for subclasses."""

    def conditions(self) -> dict[str, Any]:
        """Conditions for reproducing the figures; read before anything is loaded."""

    def prepare(self, lane: L_contra) -> Start | None:
        """Load, or reload, what the lane times; None where loading is not timed."""

    def returns(self, lane: L_contra) -> Parity | None:
        """Compare the lane's results with those expected; None where there is no reference."""

    def run(self, lane: L_contra, runs: int, warmup: int) -> Block:
        """`warmup` runs, stored separately, then `runs` runs."""

    def look(self, lane: L_contra, runs: int, warmup: int) -> Block:
        """A few runs, from which the runs of a block are computed."""
        return self.run(lane, runs, warmup)

    def settle(self, lane: L_contra, runs: int, warmup: int) -> None:
        """Called once after parity and before the first block."""
        return None  # with a body, so that it is not abstract

    def beside(self, lane: L_contra, number: int) -> None:
        """Called after block `number`, for further samples that belong to it."""
        return None  # the same


def measure(
    device: Measurer[L], lanes: Iterable[L], amount: Amount, stages: Stages, *, shuffle: Random | None = None
) -> dict[str, Any]:
    """Fill the lanes' starts, parity and blocks; returns the conditions, with the runs of a block.

    The lanes take turns in their order, or with `shuffle` in another order for each block, so that none always
    follows the same one. Raises ParityError before it times a lane that returns other results, and what the device
    raises; complete blocks stay in the lanes.
    """
    conditions = device.conditions()
    ready = list(lanes)
    for number in range(1, amount.starts + 1):
        for lane in ready:
            with stages.part(f"start {number} of {amount.starts}: {lane.name}"):
                start = device.prepare(lane)
            lane.starts += [start] if start else []
            if number == amount.starts:
                _check(device, lane, stages)
    runs = amount.runs or _fitting_runs(device, ready, amount)
    for lane in ready:
        device.settle(lane, runs, amount.warmup)
    for number in range(1, amount.blocks + 1):
        for lane in shuffle.sample(ready, len(ready)) if shuffle else ready:
            with stages.part(f"block {number} of {amount.blocks}: {lane.name}"):
                lane.blocks.append(device.run(lane, runs, amount.warmup))
                device.beside(lane, number)
    return conditions | {"runs_per_block": runs}


def parts_of(lanes: int, amount: Amount) -> int:
    """Number of `Stages` parts in the loop."""
    return lanes * (amount.starts + amount.blocks)


def timed_block(once_ms: Callable[[], float], runs: int, warmup: int) -> Block:
    """A block of something that reports its own milliseconds."""
    warm = tuple(once_ms() for _ in range(warmup))
    return Block(tuple(once_ms() for _ in range(runs)), warm)


def ms_of(call: Callable[[], object]) -> float:
    """Milliseconds that a call takes, by this machine's clock."""
    started = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - started) / 1e6


@dataclass(kw_only=True)
class CallLane(Lane):
    """A function of this process."""

    call: Callable[[], object]


class Calls(Measurer[CallLane]):
    """Times functions of this process. They are loaded, and the caller has checked their results."""

    def conditions(self) -> dict[str, Any]:
        return {}

    def prepare(self, lane: CallLane) -> None:
        return None

    def returns(self, lane: CallLane) -> None:
        return None

    def run(self, lane: CallLane, runs: int, warmup: int) -> Block:
        return timed_block(lambda: ms_of(lane.call), runs, warmup)


def _check(device: Measurer[L], lane: L, stages: Stages) -> None:
    stages.stage(f"comparing the results of {lane.name} with those expected")
    lane.parity = device.returns(lane)
    if lane.parity is not None and not lane.parity.agrees:
        raise ParityError(lane.parity.problem)


def _fitting_runs(device: Measurer[L], lanes: Sequence[L], amount: Amount) -> int:
    looks = [device.look(lane, amount.look, max(1, amount.warmup)) for lane in lanes]
    return amount.fitting(max(block.median_ms for block in looks))
