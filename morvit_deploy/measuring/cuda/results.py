"""Results of a measurement on a GPU, and their table. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from morvit_deploy.report import Report, Shown, Table
from morvit_deploy.timing.result import Measured, Result, described


@dataclass(frozen=True, repr=False)
class Timing(Measured):
    """One part of a bundle, run one way."""

    bundle: str
    part: str  # model, stem, or a bucket
    runtime: str
    cuda_graph: bool
    transfers: bool  # with transfers by the host's clock, else by CUDA events

    def as_dict(self) -> dict[str, Any]:
        """Percentiles and every raw sample."""
        fields = ("bundle", "part", "runtime", "batch", "cuda_graph", "transfers")
        return {
            **{name: getattr(self, name) for name in fields},
            "blocks_ms": [list(block.ms) for block in self.blocks],
            "latency_ms": self.latency_ms,
            "images_per_s": self.images_per_s,
        }


class CudaResult(Result[Timing], Shown):
    """All parts of one call."""

    def __repr__(self) -> str:
        return f"CudaResult({described(self)})"

    def report(self) -> Report:
        """One row a part and way."""
        return cuda_report(self)

    def as_dict(self) -> dict[str, Any]:
        """What `bench --device cuda --json` prints."""
        return super().as_dict() | {"timings": [timing.as_dict() for timing in self.measured]}


def cuda_report(result: CudaResult) -> Report:
    """One row a part and way."""
    rows = [_row(timing) for timing in result.measured]
    columns = ("bundle", "part", "batch", "CUDA graph", "transfers", "p50 ms", "p90 ms", "p99 ms", "images/s")
    runtimes = "; ".join(dict.fromkeys(timing.runtime for timing in result.measured))
    caption = f"{runtimes}. {result.conditions['timed']}"
    first = result.measured[0]
    outcome = f"{first.bundle}, {first.part}, takes {first.latency_ms['p50']:.3f} ms (median) at batch {first.batch}."
    table = Table("Parts", columns, rows, numeric=(2, 5, 6, 7, 8), caption=caption)
    return Report("Latency on the GPU", [table], outcome)


def _row(timing: Timing) -> tuple[str, ...]:
    graph, ways = "on" if timing.cuda_graph else "off", "in and out" if timing.transfers else "none"
    latency = [f"{timing.latency_ms[rank]:.3f}" for rank in ("p50", "p90", "p99")]
    return timing.bundle, timing.part, str(timing.batch), graph, ways, *latency, f"{timing.images_per_s:.0f}"
