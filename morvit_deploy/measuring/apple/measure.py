"""Measures a package in the loop, with one lane for each choice of compute units. No coremltools.

For each choice, every function is loaded twice, and every bucket must return the expected logits. A block is the mix
as an app runs it (stem, bucket, perhaps `full`), and then each function in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.errors import MorvitError, ParityError, TargetError
from morvit_deploy.exporters.coreml.sdk.bundle import STEM, Package
from morvit_deploy.measuring.apple.dispatching import Backend, Function, Prediction, predict
from morvit_deploy.measuring.apple.goldens import Goldens, UnitsParity, agreement
from morvit_deploy.measuring.apple.outcome import AppleMeasured, FunctionTimes, HostMix
from morvit_deploy.measuring.apple.placement import Placement, place
from morvit_deploy.timing.loop import Amount, Lane, Measurer, Stages, measure
from morvit_deploy.timing.samples import Block, Start


@dataclass(kw_only=True)
class UnitsLane(Lane):
    """One choice of compute units that is being measured."""

    units: str
    parity: UnitsParity | None = None
    functions: dict[str, Function] = field(default_factory=dict)
    first_run_ms: float = 0.0
    reload_ms: dict[str, float] = field(default_factory=dict)
    alone: dict[str, list[Block]] = field(default_factory=dict)  # by function, in a row
    placements: list[Placement] = field(default_factory=list)
    not_placed: str = ""
    fed: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)  # inputs of each function

    def restart(self) -> None:
        """Forget what was measured; the functions stay loaded."""
        for held in (self.blocks, self.alone, self.placements, self.fed):
            held.clear()

    def close(self) -> None:
        """Free the functions."""
        for function in self.functions.values():
            function.close()


@dataclass
class CoreMl(Measurer[UnitsLane]):
    """A package on a backend."""

    package: Package
    backend: Backend
    goldens: Goldens
    stages: Stages
    current: UnitsLane | None = None  # that is being loaded, compared or timed

    def conditions(self) -> dict[str, Any]:
        return {}  # `measure_on` reads them

    def prepare(self, lane: UnitsLane) -> None:
        self.current = lane
        for name in self.package.functions:
            if name not in lane.functions:  # after a restart they are loaded
                self.stages.stage(f"{lane.units}: loading {name}")
                lane.functions[name] = self.backend.open(name, lane.units)

    def returns(self, lane: UnitsLane) -> UnitsParity:
        """Compare each bucket's logits with those expected; stores the inputs of every function."""
        found = UnitsParity(self.backend.device, lane.units)
        for bucket, golden in self.goldens.buckets.items():
            self.stages.stage(f"{lane.units}: comparing the logits of {bucket}")
            predictions = [self._predict(lane, pixels, bucket) for pixels in golden.pixels]
            lane.first_run_ms = lane.first_run_ms or predictions[0].ms
            for one in predictions:
                for function, feeds in one.fed.items():
                    lane.fed.setdefault(function, []).append(feeds)
            logits = [one.logits for one in predictions]
            found.buckets[bucket] = agreement(logits, golden, self.package.precision)
            if not found.agrees:
                break
        return found

    def settle(self, lane: UnitsLane, runs: int, warmup: int) -> None:
        self.current = lane
        for name, function in lane.functions.items():
            self.stages.stage(f"{lane.units}: loading {name} again")
            lane.reload_ms[name] = function.reload()
        self._place(lane)

    def run(self, lane: UnitsLane, runs: int, warmup: int) -> Block:
        """A pass of the mix, then each function in a row; a package of one bucket has only its function."""
        self.current = lane
        stream = self._pass(lane, runs, warmup) if self.package.adaptive else None
        taken = {name: _in_a_row(lane, name, runs, warmup) for name in lane.functions}
        for name, block in taken.items():  # only complete blocks count
            lane.alone.setdefault(name, []).append(block)
        return stream or taken[self.package.functions[0]]

    def measured(self, lane: UnitsLane, inputs_digest: str) -> AppleMeasured:
        """All measurements of a lane with at least one block."""
        package = self.package
        load_ms = {name: function.load_ms for name, function in lane.functions.items()}
        again_ms = sum(lane.reload_ms.values())
        cold_ms = sum(load_ms.values()) + lane.first_run_ms
        return AppleMeasured(
            name=lane.name,
            batch=1,
            blocks=tuple(lane.blocks),
            target=package.target,
            precision=package.precision,
            form=package.form,
            macs=package.macs,
            file_bytes=package.file_bytes,
            inputs_digest=inputs_digest,
            starts=(Start(cold_ms, again_ms, lane.first_run_ms, None),),
            memory_mib={},
            mix=self._mix(lane) if package.adaptive else None,
            units=lane.units,
            functions={
                name: FunctionTimes(load_ms[name], lane.reload_ms[name], tuple(blocks))
                for name, blocks in lane.alone.items()
            },
            placements=tuple(lane.placements),
            not_placed=lane.not_placed,
            parity=lane.parity.buckets if lane.parity else {},
        )

    def _predict(self, lane: UnitsLane, pixels: NDArray[np.uint8], bucket: str | None) -> Prediction:
        return predict(self.package, lane.functions, self.backend.picture(pixels), bucket)

    def _place(self, lane: UnitsLane) -> None:
        """Read placements; without them the reason is recorded, and the times are kept."""
        try:
            for name in self.package.functions:
                self.stages.stage(f"{lane.units}: where Core ML runs {name}")
                lane.placements.append(place(name, self.backend.placement(name, lane.units)))
        except TargetError as error:
            lane.placements.clear()
            lane.not_placed = str(error)

    def _pass(self, lane: UnitsLane, runs: int, warmup: int) -> Block:
        order = self.goldens.stream(runs)
        warm = list(islice(cycle(order), warmup))
        predictions = [
            self._predict(lane, self.goldens.buckets[bucket].pixels[picture], None)
            for bucket, picture in (*warm, *order)
        ]
        ms = tuple(one.ms for one in predictions)
        timed = predictions[len(warm) :]
        predicts = self.package.plan.mode == "threshold"
        return Block(
            ms[len(warm) :],
            ms[: len(warm)],
            bucket=tuple((one.bucket,) for one in timed),
            overflow=tuple((one.overflow,) for one in timed) if predicts else (),
        )

    def _mix(self, lane: UnitsLane) -> HostMix:
        """A bucket alone is the sum of its stem and trunk in a row, run by run."""
        alone = {
            bucket.name: tuple(
                Block(tuple(map(sum, zip(stem.ms, trunk.ms, strict=True))))
                for stem, trunk in zip(lane.alone[STEM], lane.alone[bucket.name], strict=True)
            )
            for bucket in self.package.plan.buckets
        }
        kinds = tuple(kind for block in lane.blocks for kind in block.kinds)
        return HostMix(self.package.plan, 1, kinds, tuple(lane.blocks), alone, {}, None)


@dataclass(frozen=True)
class Measurements:
    """What was measured, the choices of compute units that failed, and the error that ended it early, if any."""

    measured: tuple[AppleMeasured, ...]
    failed: dict[str, MorvitError]  # by units
    cut: MorvitError | None


def measure_units(device: CoreMl, units: Sequence[str], amount: Amount, inputs_digest: str) -> Measurements:
    """Measure each choice of compute units.

    A choice that cannot be loaded, fails or returns wrong logits is left out, and the others go on. A device of one
    choice at a time may be lost, which ends the measurement. If nothing was measured, the errors are raised as one.
    """
    groups = [list(units)] if device.backend.together else [[one] for one in units]
    measured: list[AppleMeasured] = []
    failed: dict[str, MorvitError] = {}
    cut: MorvitError | None = None
    for group in groups:
        lanes = [UnitsLane(name=f"{device.package.folder} [{one}]", units=one) for one in group]
        try:
            cut = _group(device, lanes, amount, failed)
        finally:
            for lane in lanes:
                lane.close()
        measured += [device.measured(lane, inputs_digest) for lane in lanes if lane.blocks]
        if cut is not None:
            break
    if not measured:
        raise _of_all([*failed.values(), *([cut] if cut else [])])
    return Measurements(tuple(measured), failed, cut)


def _group(
    device: CoreMl, lanes: Sequence[UnitsLane], amount: Amount, failed: dict[str, MorvitError]
) -> MorvitError | None:
    """Measure some choices in turn, without those that fail; returns the error that lost the device.

    Complete blocks are kept then.
    """
    left, done = [*lanes], device.stages.done
    while left:
        try:
            measure(device, left, amount, device.stages)
            return None
        except (TargetError, ParityError) as error:
            lane = device.current
            if lane is None or not (device.backend.together or isinstance(error, ParityError)):
                return error
            failed[lane.units] = error
            left.remove(lane)
            for one in lanes:
                one.restart()
            device.stages.done = done
    return None


def _of_all(errors: Sequence[MorvitError]) -> MorvitError:
    """The only error, or one that says all; wrong logits count most."""
    if len(errors) == 1:
        return errors[0]
    wrong = any(isinstance(error, ParityError) for error in errors)
    listed = "\n".join(f"  - {error}" for error in errors)
    return (ParityError if wrong else TargetError)(f"no choice of compute units could be measured:\n{listed}")


def _in_a_row(lane: UnitsLane, name: str, runs: int, warmup: int) -> Block:
    ms = tuple(
        time
        for feeds, share in _spread(lane.fed[name], warmup + runs)
        for time in lane.functions[name].times(feeds, share)
    )
    return Block(ms[warmup:], ms[:warmup])


def _spread(feeds: Sequence[Mapping[str, Any]], runs: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Inputs with their number of runs, as even as possible; the runs of one input are consecutive."""
    for number, one in enumerate(feeds):
        share = runs // len(feeds) + (number < runs % len(feeds))
        if share:
            yield dict(one), share
