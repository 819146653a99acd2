"""Measures a package wherever its functions run: parity first, then loads and blocks. No torch, no coremltools.

Under each choice of compute units every function is loaded twice and every bucket must answer the expected logits;
then blocks: the mix as an app runs it (stem, bucket, perhaps `full`), and each function in a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice

import numpy as np

from morvit_deploy.errors import MorvitError, ParityError, TargetError
from morvit_deploy.measuring.apple.dispatching import Answer, Backend, Function, answer
from morvit_deploy.measuring.apple.goldens import Agreement, Goldens, agreement
from morvit_deploy.measuring.apple.outcome import AppleMeasured, FunctionTimes, HostMix
from morvit_deploy.measuring.apple.package import STEM, Package
from morvit_deploy.measuring.apple.placement import Placement, place
from morvit_deploy.measuring.core.samples import Block, Start


@dataclass(frozen=True)
class Effort:
    """How much to measure."""

    runs: int  # of a block
    blocks: int
    warmup: int  # before each block, not counted


@dataclass
class Lane:
    """One choice of compute units that is being measured."""

    units: str
    functions: dict[str, Function]
    first_run_ms: float = 0.0
    parity: dict[str, Agreement] = field(default_factory=dict)
    reload_ms: dict[str, float] = field(default_factory=dict)
    alone: dict[str, list[Block]] = field(default_factory=dict)  # by function, in a row
    stream: list[Block] = field(default_factory=list)
    placements: list[Placement] = field(default_factory=list)
    not_placed: str = ""
    fed: dict[str, list] = field(default_factory=dict)  # inputs of each function


@dataclass
class Bench:
    """A package on a backend; `say` hears the stage, `share` the part done, 0 to 1."""

    package: Package
    backend: Backend
    goldens: Goldens
    effort: Effort
    inputs_digest: str
    say: Callable[[str], None] = lambda stage: None
    share: Callable[[float], None] = lambda part: None

    def measure(self, units: Sequence[str]) -> tuple[tuple[AppleMeasured, ...], MorvitError | None]:
        """What was measured, and why it ended early, if it did.

        ParityError when a bucket does not answer as expected, TargetError when the device is lost: raised unless
        something was measured before, and else returned beside it.
        """
        groups = [list(units)] if self.backend.together else [[one] for one in units]
        self._total, self._done = len(units) * (2 + self.effort.blocks), 0
        measured: list[AppleMeasured] = []
        for group in groups:
            lanes: list[Lane] = []
            try:
                cut = self._group(group, lanes)
            finally:
                for lane in lanes:
                    for function in lane.functions.values():
                        function.close()
            measured += [self._measured(lane) for lane in lanes if self._complete(lane)]
            if cut is not None:
                if not measured:
                    raise cut
                return tuple(measured), cut
        return tuple(measured), None

    def _group(self, units: Sequence[str], lanes: list[Lane]) -> MorvitError | None:
        """Measure some choices in turn; an error is handed back, so that what was taken before it is kept."""
        try:
            for one in units:
                lanes.append(self._open(one))
                self._check(lanes[-1])
                self._step()
                for name, function in lanes[-1].functions.items():
                    self.say(f"{one}: loading {name} again")
                    lanes[-1].reload_ms[name] = function.reload()
                self._place(lanes[-1])
                self._step()
            for number in range(1, self.effort.blocks + 1):
                for lane in lanes:
                    self.say(f"block {number} of {self.effort.blocks}: {lane.units}")
                    self._block(lane)
                    self._step()
        except (TargetError, ParityError) as error:
            return error
        return None

    def _open(self, units: str) -> Lane:
        functions: dict[str, Function] = {}
        for name in self.package.functions:
            self.say(f"{units}: loading {name}")
            functions[name] = self.backend.open(name, units)
        return Lane(units, functions)

    def _check(self, lane: Lane) -> None:
        """Each bucket's pictures against the expected logits; keeps the inputs of every function."""
        for bucket, golden in self.goldens.buckets.items():
            self.say(f"{lane.units}: parity of {bucket}")
            answers = [self._answer(lane, pixels, bucket) for pixels in golden.pixels]
            lane.first_run_ms = lane.first_run_ms or answers[0].ms
            for one in answers:
                for function, feeds in one.fed.items():
                    lane.fed.setdefault(function, []).append(feeds)
            lane.parity[bucket] = found = agreement(
                [a.logits for a in answers], golden, self.package.precision
            )
            if not found.agrees:
                raise ParityError(
                    f"{self.backend.device} with compute units {lane.units!r} answers bucket {bucket!r} wrongly: "
                    f"of {len(found.error)} pictures the median error is {np.median(found.error):.3g} of the largest "
                    f"logit, expected at most {found.tolerance:g}, and {found.top1:.0%} have the expected class; "
                    "nothing was timed with these units. Choose others with --compute-units, or export with another "
                    "--layout"
                )

    def _answer(self, lane: Lane, pixels: np.ndarray, bucket: str | None) -> Answer:
        return answer(self.package, lane.functions, self.backend.picture(pixels), bucket)

    def _place(self, lane: Lane) -> None:
        """A placement that cannot be had is said; it is no reason to lose the times."""
        try:
            for name in self.package.functions:
                self.say(f"{lane.units}: where Core ML runs {name}")
                lane.placements.append(place(name, self.backend.placement(name, lane.units)))
        except TargetError as error:
            lane.placements.clear()
            lane.not_placed = str(error)

    def _block(self, lane: Lane) -> None:
        """A pass of the mix, then each function in a row."""
        effort, taken = self.effort, {}
        stream = self._pass(lane) if self.package.adaptive else None
        for name, function in lane.functions.items():
            ms = [
                time
                for feeds, runs in _spread(lane.fed[name], effort.warmup + effort.runs)
                for time in function.times(feeds, runs)
            ]
            taken[name] = Block(tuple(ms[effort.warmup :]), tuple(ms[: effort.warmup]))
        for name, block in taken.items():  # a block counts when it is whole
            lane.alone.setdefault(name, []).append(block)
        if stream is not None:
            lane.stream.append(stream)

    def _pass(self, lane: Lane) -> Block:
        order = self.goldens.stream(self.effort.runs)
        warm = list(islice(cycle(order), self.effort.warmup))
        answers = [
            self._answer(lane, self.goldens.buckets[bucket].pixels[picture], None)
            for bucket, picture in (*warm, *order)
        ]
        ms = [one.ms for one in answers]
        timed = answers[len(warm) :]
        flags = tuple((one.overflow,) for one in timed) if self._predicts else ()
        return Block(
            tuple(ms[len(warm) :]),
            tuple(ms[: len(warm)]),
            bucket=tuple((one.bucket,) for one in timed),
            overflow=flags,
        )

    @property
    def _predicts(self) -> bool:
        return self.package.plan.mode == "threshold"

    def _step(self) -> None:
        self._done += 1
        self.share(self._done / self._total)

    def _complete(self, lane: Lane) -> bool:
        return all(name in lane.alone for name in lane.functions)

    def _measured(self, lane: Lane) -> AppleMeasured:
        package, adaptive = self.package, self.package.adaptive
        load_ms = {name: function.load_ms for name, function in lane.functions.items()}
        again_ms = sum(lane.reload_ms.values())
        cold_ms = sum(load_ms.values()) + lane.first_run_ms
        return AppleMeasured(
            bundle=f"{package.folder} [{lane.units}]",
            target="coreml",
            precision=package.precision,
            form=package.form,
            batch=1,
            macs=package.macs,
            file_bytes=package.file_bytes,
            inputs_digest=self.inputs_digest,
            starts=(Start(cold_ms, again_ms, lane.first_run_ms, None),),
            blocks=tuple(lane.stream) if adaptive else tuple(lane.alone[package.functions[0]]),
            memory_mib={},
            mix=self._mix(lane) if adaptive else None,
            units=lane.units,
            functions={
                name: FunctionTimes(load_ms[name], lane.reload_ms[name], tuple(blocks))
                for name, blocks in lane.alone.items()
            },
            placements=tuple(lane.placements),
            not_placed=lane.not_placed,
            parity=dict(lane.parity),
        )

    def _mix(self, lane: Lane) -> HostMix:
        """A bucket alone is its stem and its trunk, each in a row, added run by run."""
        alone = {
            bucket.name: tuple(
                Block(tuple(map(sum, zip(stem.ms, trunk.ms, strict=True))))
                for stem, trunk in zip(lane.alone[STEM], lane.alone[bucket.name], strict=True)
            )
            for bucket in self.package.plan.buckets
        }
        kinds = tuple(kind for block in lane.stream for kind in block.kinds)
        stream = tuple(lane.stream)
        return HostMix(self.package.plan, 1, kinds, stream, alone, {}, None)  # type: ignore[arg-type]  # PlanShape


def _spread(feeds: Sequence, runs: int) -> Iterator[tuple[dict, int]]:
    """Different inputs in turn, as evenly as they divide; each in a row, as a device takes them at once."""
    for number, one in enumerate(feeds):
        share = runs // len(feeds) + (number < runs % len(feeds))
        if share:
            yield dict(one), share
