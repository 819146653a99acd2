"""Bundles measured in turn on this machine's CPU. No torch."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from morvit_deploy.machine.extras import install_line, is_missing
from morvit_deploy.machine.this import checked_threads
from morvit_deploy.measuring.core.request import BenchRequest
from morvit_deploy.measuring.core.results import BenchResult
from morvit_deploy.measuring.cpu.lanes import BundleLane, BundleProcesses, parities
from morvit_deploy.timing.loop import measure
from morvit_deploy.timing.result import warnings_about


def bench_here(request: BenchRequest) -> BenchResult:
    """As `bench`, on this machine."""
    threads = checked_threads(request.threads)
    with tempfile.TemporaryDirectory(prefix="morvit-bench-") as scratch, ExitStack() as stack:
        lanes = [BundleLane.of(subject) for subject in request.subjects(Path(scratch))]
        device = BundleProcesses(threads, stack, mixes=not is_missing("onnx"), tell=request.stages.stage)
        conditions = measure(device, lanes, request.amount, request.stages)
        measured = tuple(lane.measured() for lane in lanes)
    conditions |= {"threads": threads, **request.settings(), "parity": parities(lanes)}
    warnings = (*warnings_about(conditions, measured), *_not_measured(lanes, device))
    return BenchResult(request.device, measured, conditions, warnings)


def _not_measured(lanes: Sequence[BundleLane], device: BundleProcesses) -> list[str]:
    """A warning for each bundle whose buckets could not be taken out of its graph."""
    return [
        f"{lane.name}: its buckets were not measured alone, which requires onnx; run `{install_line('export')}`"
        for lane in lanes
        if lane.subject.manifest.plan.adaptive and not device.mixes
    ]
