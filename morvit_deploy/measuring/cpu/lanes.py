"""Lanes of bundles for the loop, each in processes of its own, on this CPU or on another device."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from morvit_deploy.bundle.session import kernel_warnings
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.files import temporary
from morvit_deploy.machine.extras import install_line, is_missing
from morvit_deploy.machine.integer_kernels import IntegerKernels, kernels_here
from morvit_deploy.machine.this import checked_threads, versions
from morvit_deploy.measuring.core.inputs import Subject, expected_file
from morvit_deploy.measuring.core.parity import LogitParity, expected_answers, parity_rounds, save_expected
from morvit_deploy.measuring.core.request import BenchRequest, settings
from morvit_deploy.measuring.core.results import BenchResult, MeasuredBundle
from morvit_deploy.measuring.cpu.mix import MixRuns
from morvit_deploy.measuring.cpu.process import BundleProcess, OpenWorker, open_here
from morvit_deploy.timing.conditions import read_conditions
from morvit_deploy.timing.loop import Lane, Measurer, measure
from morvit_deploy.timing.result import warnings_about
from morvit_deploy.timing.samples import Block, Start


@dataclass(kw_only=True)
class BundleLane(Lane):
    """A bundle that is being measured; `worker` is its process once it is prepared."""

    subject: Subject
    worker: BundleProcess = field(init=False)
    mix: MixRuns | None = None

    @classmethod
    def of(cls, subject: Subject, name: str = "") -> BundleLane:
        """The name defaults to the bundle's folder."""
        return cls(name=name or str(subject.bundle), batch=subject.batch, subject=subject)

    def keep_whole(self) -> None:
        """After a block that was cut off, keep only the complete blocks of the mix."""
        if self.mix is not None and not self.mix.keep_whole():
            self.mix = None

    def measured(self, memory_mib: dict[str, float] | None = None) -> MeasuredBundle:
        """All measurements; memory is read from the process unless given."""
        manifest = self.subject.manifest
        return MeasuredBundle(
            name=self.name,
            batch=self.batch,
            blocks=tuple(self.blocks),
            target=manifest.target,
            precision=manifest.precision,
            form=manifest.form,
            macs=dict(manifest.macs),
            file_bytes=sum(file.bytes for file in manifest.files),
            inputs_digest=self.subject.inputs_digest,
            starts=tuple(self.starts),
            memory_mib=self.worker.memory_mib() if memory_mib is None else memory_mib,
            mix=self.mix.mix(self.blocks) if self.mix else None,
        )


class BundleProcesses(Measurer[BundleLane]):
    """Opens, compares and runs bundles in processes that `stack` closes."""

    place = "in a process of its own"  # for errors of parity

    def __init__(
        self,
        threads: int,
        stack: ExitStack,
        *,
        mixes: bool = True,
        open_worker: OpenWorker = open_here,
        tell: Callable[[str], None] = lambda stage: None,
    ) -> None:
        """With `mixes`, the buckets of adaptive bundles are measured too."""
        self.threads, self.stack, self.mixes = threads, stack, mixes
        self.open_worker, self.tell = open_worker, tell

    def conditions(self) -> dict[str, Any]:
        return read_conditions()

    def prepare(self, lane: BundleLane) -> Start:
        if lane.starts:
            lane.worker.close()
        lane.worker = self.open_worker(lane.subject, self.threads, None)
        self.stack.callback(lane.worker.close)
        return lane.worker.start

    def returns(self, lane: BundleLane) -> LogitParity:
        self.expect(lane.subject)
        found = lane.worker.parity(parity_rounds(lane.subject))
        manifest = lane.subject.manifest
        return LogitParity.of(lane.name, self.place, manifest.precision, found, manifest.head)

    def expect(self, subject: Subject) -> None:
        """Write what is expected for the process to read."""
        save_expected(expected_file(subject.pixels), subject.manifest.output, expected_answers(subject))

    def look(self, lane: BundleLane, runs: int, warmup: int) -> Block:
        return lane.worker.run(runs, warmup)

    def settle(self, lane: BundleLane, runs: int, warmup: int) -> None:
        if self.mixes and lane.subject.manifest.plan.adaptive:
            self.tell(f"finding the buckets of {lane.name}")
            more = (runs, warmup, self.open_worker)
            lane.mix = MixRuns(lane.subject, lane.worker, self.threads, self.stack, *more)

    def run(self, lane: BundleLane, runs: int, warmup: int) -> Block:
        """At least `runs` runs; whole passes over the stream of an adaptive bundle."""
        stream = lane.subject.stream
        if stream is None:
            return lane.worker.run(runs, warmup)
        return lane.worker.run(math.ceil(runs / len(stream)) * len(stream), warmup, stream)

    def beside(self, lane: BundleLane, number: int) -> None:
        if lane.mix is not None:
            lane.mix.take(number)


def parities(lanes: Sequence[BundleLane]) -> dict[str, Any]:
    """By bundle, for the conditions."""
    return {lane.name: lane.parity.as_dict() for lane in lanes if lane.parity is not None}


def bench_here(request: BenchRequest) -> BenchResult:
    """`bench` on this machine's CPU."""
    threads = checked_threads(request.threads)
    with temporary("bench") as scratch:
        subjects = request.subjects(scratch)
        if request.profile:
            from morvit_deploy.measuring.profiling.profiling import check_profiled

            check_profiled(subjects)
        with ExitStack() as stack:
            lanes = [BundleLane.of(subject) for subject in subjects]
            device = BundleProcesses(threads, stack, mixes=not is_missing("onnx"), tell=request.stages.stage)
            conditions = measure(device, lanes, request.amount, request.stages)
            measured = tuple(lane.measured() for lane in lanes)
        if request.profile:
            measured = tuple(
                _with_profile(lane, one, request, scratch) for lane, one in zip(lanes, measured, strict=True)
            )
    conditions |= {"threads": threads, **settings(request.source, request.amount), "parity": parities(lanes)}
    conditions["versions"] |= versions(
        tuple(name for lane in lanes for name in find_target(lane.subject.manifest.target).needs.tested)
    )
    warnings = (
        *warnings_about(conditions, measured),
        *saturating(lanes, kernels_here()),
        *not_measured(lanes, device),
        *_about_runtimes(lanes),
        *(text for one in measured if one.profile for text in one.profile.warnings(one.name)),
    )
    return BenchResult(request.device, measured, conditions, warnings)


def _with_profile(
    lane: BundleLane, measured: MeasuredBundle, request: BenchRequest, scratch: Path
) -> MeasuredBundle:
    """With the profile of the bucket that most images ran in, once no other process of `bench` is left."""
    from morvit_deploy.measuring.profiling.profiling import profile_bundle  # not for every `bench`

    buckets = [bucket.name for bucket in lane.subject.manifest.plan.buckets]
    ran = Counter(kind if kind in buckets else buckets[-1] for block in lane.blocks for kind in block.kinds)
    bucket = ran.most_common(1)[0][0] if ran else buckets[0]
    threads = checked_threads(request.threads)
    profile = profile_bundle(lane.subject, bucket, threads, request.amount, request.stages, scratch)
    return replace(measured, profile=profile)


def _about_runtimes(lanes: Sequence[BundleLane]) -> Iterator[str]:
    """For each bundle: a runtime of an untested version, and one that runs otherwise on the target's own devices."""
    for lane in lanes:
        target = find_target(lane.subject.manifest.target)
        yield from (f"{lane.name}: {text}" for text in target.untested_here(lane.subject.manifest.versions))
        if target.names_runtime:
            runs = target.runs_here(set(), False)
            yield f"{lane.name} was run by {runs}; threads are its own, and times on its devices differ"


def saturating(lanes: Sequence[BundleLane], kernels: IntegerKernels, place: str = "") -> list[str]:
    """A warning for each bundle whose int8 products saturate on the processor that ran it."""
    return [
        f"{lane.name}{place}: {text}"
        for lane in lanes
        for text in kernel_warnings(lane.subject.manifest.lowering, kernels)
    ]


def not_measured(lanes: Sequence[BundleLane], device: BundleProcesses) -> list[str]:
    """A warning for each bundle whose buckets could not be taken out of its graph."""
    return [
        f"{lane.name}: its buckets were not measured alone, which requires onnx; run `{install_line('export')}`"
        for lane in lanes
        if lane.subject.manifest.plan.adaptive and not device.mixes
    ]
