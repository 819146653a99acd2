"""Bundles on an NVIDIA GPU: engines and ONNX Runtime's CUDA sessions, timed on the device and around it. No torch.

Each part of a bundle (its only graph; or a stem and a trunk for each bucket) is timed by CUDA events over inputs that
are on the device already, with and without a CUDA graph where it can be captured, and by the clock with transfers in
and out. What chooses between buckets on the host is in no part's time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from morvit_deploy.exporters.trt.engine import Cuda
from morvit_deploy.measuring.core.inputs import Source, folders_of
from morvit_deploy.measuring.core.parity import LogitParity
from morvit_deploy.measuring.cuda.parts import Part, open_parts
from morvit_deploy.measuring.cuda.results import CudaResult, Timing
from morvit_deploy.timing.conditions import read_conditions
from morvit_deploy.timing.loop import (
    BLOCKS,
    WARMUP,
    Amount,
    Lane,
    Measurer,
    Stages,
    measure,
    ms_of,
    parts_of,
    timed_block,
)
from morvit_deploy.timing.result import warnings_about
from morvit_deploy.timing.samples import Block

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


@dataclass(kw_only=True)
class PartLane(Lane):
    """One way to run one part at one batch size."""

    part: Part
    transfers: bool

    @classmethod
    def of(cls, part: Part, transfers: bool) -> PartLane:
        """Named by the part, the bundle and the way."""
        graph = ", CUDA graph" if part.captured else ""
        way = "with transfers" if transfers else "on the device"
        name = f"{part.name} of {part.bundle} (batch {part.batch}{graph}, {way})"
        return cls(name=name, batch=part.batch, part=part, transfers=transfers)

    def timing(self) -> Timing:
        """All that was taken."""
        return Timing(
            name=self.name,
            batch=self.batch,
            blocks=tuple(self.blocks),
            bundle=self.part.bundle,
            part=self.part.name,
            runtime=self.part.graph.runtime,
            cuda_graph=self.part.captured,
            transfers=self.transfers,
        )


class Gpu(Measurer[PartLane]):
    """Parts that are loaded on the first GPU."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def conditions(self) -> dict[str, Any]:
        return read_conditions()

    def prepare(self, lane: PartLane) -> None:
        return None  # loaded when its inputs were found

    def returns(self, lane: PartLane) -> LogitParity | None:
        return None if lane.transfers else lane.part.parity()  # both ways are the same runs of the same part

    def run(self, lane: PartLane, runs: int, warmup: int) -> Block:
        if lane.transfers:
            return timed_block(lambda: ms_of(lane.part.whole), runs, warmup)
        return timed_block(lambda: self._on_device_ms(lane.part), runs, warmup)

    def _on_device_ms(self, part: Part) -> float:
        before, after = self.clock.new_event(), self.clock.new_event()
        self.clock.record(before, part.graph.stream)
        part.graph.enqueue()
        self.clock.record(after, part.graph.stream)
        return self.clock.elapsed_ms(before, after)


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
    parts are taken in turn. Raises ParityError where a part returns other logits than the same graph on the CPU;
    TargetError where there is no GPU, no runtime for it, or ONNX Runtime would fall back to the CPU; BundleError for
    engines of another machine.
    """
    amount = Amount(RUNS if runs is None else runs, blocks, warmup, starts=1)
    folders = folders_of(bundles)
    cuda = cuda or Cuda()
    with ExitStack() as stack:
        lanes: list[PartLane] = []
        for folder in folders:
            tell(f"loading {folder}")
            for part in open_parts(folder, cuda, Source(images, upscale), batches, stack):
                lanes += [PartLane.of(part, transfers) for transfers in (False, True)]
        conditions = measure(Gpu(cuda), lanes, amount, Stages(tell, progress, parts_of(len(lanes), amount)))
        timings = tuple(lane.timing() for lane in lanes)
    conditions |= {
        "blocks": amount.blocks,
        "warmup_runs_per_block": amount.warmup,
        "timed": TIMED,
        "parity": {lane.name: lane.parity.as_dict() for lane in lanes if lane.parity is not None},
    }
    return CudaResult("cuda", timings, conditions, warnings_about(conditions, timings))
