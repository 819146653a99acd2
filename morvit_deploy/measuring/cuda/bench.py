"""Measures engines and ONNX Runtime's CUDA sessions on an NVIDIA GPU, with and without transfers. No torch.

Each part of a bundle (its only graph, or a stem and a trunk for each bucket) is timed by CUDA events with inputs on
the device, with and without a CUDA graph where one can be captured, and by the host's clock with transfers in and
out. Dispatch on the host is not included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    "on the device: CUDA events around a run with inputs on the device, transfers excluded; with transfers: host "
    "clock around copying inputs in, the run, and copying every output out"
)


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
        """All measurements."""
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
    """Times parts on the first GPU."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def conditions(self) -> dict[str, Any]:
        return read_conditions()

    def prepare(self, lane: PartLane) -> None:
        return None  # loaded by `open_parts`

    def returns(self, lane: PartLane) -> LogitParity | None:
        return None if lane.transfers else lane.part.parity()  # both lanes of a part run the same graph

    def run(self, lane: PartLane, runs: int, warmup: int) -> Block:
        if lane.transfers:
            return timed_block(lambda: ms_of(lane.part.whole), runs, warmup)
        return timed_block(lambda: self._on_device_ms(lane.part), runs, warmup)

    def _on_device_ms(self, part: Part) -> float:
        with self.cuda.event() as before, self.cuda.event() as after:
            self.cuda.record(before, part.graph.stream)
            part.graph.enqueue()
            self.cuda.record(after, part.graph.stream)
            return self.cuda.elapsed_ms(before, after)


def bench_cuda(
    bundles: str | Path | Sequence[str | Path],
    *,
    images: str | Path | None = None,
    upscale: bool = False,
    exif: bool = False,
    batches: Sequence[int] | None = None,
    runs: int | None = None,
    blocks: int = BLOCKS,
    warmup: int = WARMUP,
    tf32: bool = False,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
    cuda: Cuda | None = None,
) -> CudaResult:
    """Measure bundles of target `trt` or `onnx` on the first GPU; times in ms.

    `batches` are for bundles of dynamic batch (default: 1, 8, 32, up to the engine's profile). `tf32` lets ONNX
    Runtime round the products of fp32 bundles to TF32. The parts take turns block by block. A part whose CUDA graph
    cannot be captured is timed without one, and a warning says so.

    Raises ParityError when a part returns other logits than the same graph on the CPU, TargetError without a GPU or a
    runtime for it, or when ONNX Runtime falls back to the CPU, BundleError for engines of another machine.
    """
    amount = Amount(RUNS if runs is None else runs, blocks, warmup, starts=1)
    folders = folders_of(bundles)
    cuda = cuda or Cuda()
    with ExitStack() as stack:
        lanes: list[PartLane] = []
        remarks: list[str] = []
        for folder in folders:
            tell(f"loading {folder}")
            source = Source(images, upscale, exif=exif)
            parts, uncaptured = open_parts(folder, cuda, source, batches, stack, tf32=tf32)
            lanes += [PartLane.of(part, transfers) for part in parts for transfers in (False, True)]
            remarks += uncaptured
        conditions = measure(Gpu(cuda), lanes, amount, Stages(tell, progress, parts_of(len(lanes), amount)))
        timings = tuple(lane.timing() for lane in lanes)
    conditions |= {
        "blocks": amount.blocks,
        "warmup_runs_per_block": amount.warmup,
        "timed": TIMED,
        "tf32": tf32,
        "parity": {lane.name: lane.parity.as_dict() for lane in lanes if lane.parity is not None},
    }
    return CudaResult("cuda", timings, conditions, (*remarks, *warnings_about(conditions, timings)))
