"""Bundles on an NVIDIA GPU: engines and ONNX Runtime's CUDA sessions, timed on the device and around it. No torch.

Each part of a bundle (its only graph; or a stem and a trunk for each bucket) is timed by CUDA events over inputs that
are on the device already, with and without a CUDA graph where it can be captured, and by the clock with transfers in
and out. What chooses between buckets on the host is in no part's time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.trt.driver import Cuda
from morvit_deploy.measuring.core.blocks import BLOCKS, MIN_RUNS, WARMUP
from morvit_deploy.measuring.core.conditions import read_conditions
from morvit_deploy.measuring.core.inputs import Source
from morvit_deploy.measuring.cuda.parts import Part, open_parts
from morvit_deploy.measuring.cuda.results import CudaResult, Timing

RUNS = 100  # a block
TIMED = (
    "on the device: CUDA events around a run over inputs that lie there, transfers excluded; with transfers: the "
    "clock around copying inputs in, the run, and copying every output out"
)


class Clock(Protocol):
    """What times: `Cuda`, or one that is made up."""

    def new_event(self) -> Any: ...
    def record(self, event: Any, stream: int) -> None: ...
    def elapsed_ms(self, before: Any, after: Any) -> float: ...


@dataclass
class Lane:
    """One way to run one part at one batch size, and its samples."""

    part: Part
    transfers: bool
    blocks: list[list[float]] = field(default_factory=list)

    def take(self, clock: Clock, runs: int, warmup: int) -> None:
        """One block; the warm-up runs before it are not kept."""
        once = self._with_transfers if self.transfers else self._on_device
        for _ in range(warmup):
            once(clock)
        self.blocks.append([once(clock) for _ in range(runs)])

    def _on_device(self, clock: Clock) -> float:
        before, after = clock.new_event(), clock.new_event()
        clock.record(before, self.part.stream)
        self.part.enqueue()
        clock.record(after, self.part.stream)
        return clock.elapsed_ms(before, after)

    def _with_transfers(self, clock: Clock) -> float:
        started = time.perf_counter_ns()
        self.part.whole()
        return (time.perf_counter_ns() - started) / 1e6

    def timing(self) -> Timing:
        """All that was taken."""
        part = self.part
        return Timing(
            part.bundle,
            part.name,
            part.runtime,
            part.batch,
            part.captured,
            self.transfers,
            tuple(map(tuple, self.blocks)),
        )


def bench_cuda(
    bundles: str | Path | Sequence[str | Path],
    *,
    images: str | Path | None = None,
    upscale: bool = False,
    batches: Sequence[int] | None = None,
    runs: int | None = None,
    blocks: int = BLOCKS,
    warmup: int = WARMUP,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
    cuda: Cuda | None = None,
) -> CudaResult:
    """Measure bundles of target `trt` or `onnx` on the first GPU; times in ms.

    `batches` are for bundles of dynamic batch (default: 1, 8, 32, as far as an engine's profile goes). Blocks of all
    parts are taken in turn. Raises TargetError where there is no GPU, no runtime for it, or ONNX Runtime would fall
    back to the CPU; BundleError for engines of another machine.
    """
    runs = RUNS if runs is None else runs
    if runs < MIN_RUNS or blocks < 1 or warmup < 0:
        raise TargetError(
            f"got {runs} runs, {blocks} blocks, {warmup} warm-up runs; expected {MIN_RUNS}, 1, 0 or more"
        )
    folders = [Path(b) for b in ([bundles] if isinstance(bundles, (str, Path)) else bundles)]
    if not folders:
        raise TargetError("got no bundle, expected one or more")
    cuda = cuda or Cuda()
    conditions = read_conditions()
    parts: list[Part] = []
    try:
        for folder in folders:
            tell(f"loading {folder}")
            parts += open_parts(folder, cuda, Source(images, upscale), batches)
        lanes = [Lane(part, transfers) for part in parts for transfers in (False, True)]
        for number in range(blocks):
            for place, lane in enumerate(lanes):
                tell(f"block {number + 1} of {blocks}: {lane.part.name} of {lane.part.bundle}")
                lane.take(cuda, runs, warmup)
                progress((number * len(lanes) + place + 1) / (blocks * len(lanes)))
        timings = tuple(lane.timing() for lane in lanes)
    finally:
        for part in parts:
            part.close()
    conditions |= {"runs_per_block": runs, "blocks": blocks, "warmup_runs_per_block": warmup, "timed": TIMED}
    return CudaResult(timings, conditions)
