"""What was measured on a GPU: raw samples in milliseconds, and what is derived from them. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from morvit_deploy.measuring.core.results import FORMAT
from morvit_deploy.measuring.core.samples import percentiles
from morvit_deploy.report import Report, Table


@dataclass(frozen=True)
class Timing:
    """One part of a bundle, run one way."""

    bundle: str
    part: str  # model, stem, or a bucket
    runtime: str
    batch: int
    cuda_graph: bool
    transfers: bool  # inputs copied in and outputs out, by the clock; else on the device alone, by events
    blocks_ms: tuple[tuple[float, ...], ...]

    @property
    def samples_ms(self) -> list[float]:
        """Every run, in the order of the blocks."""
        return [ms for block in self.blocks_ms for ms in block]

    @property
    def images_per_s(self) -> float:
        """Images answered per second, one run after the other."""
        return 1e3 * self.batch * len(self.samples_ms) / sum(self.samples_ms)

    def as_dict(self) -> dict[str, Any]:
        """Percentiles and every raw sample."""
        derived = {"latency_ms": percentiles(self.samples_ms), "images_per_s": self.images_per_s}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class CudaResult:
    """All parts of one call, measured in turn, with the conditions."""

    timings: tuple[Timing, ...]
    conditions: dict[str, Any]
    device: str = "cuda"
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """What `bench --device cuda --json` prints."""
        return {
            "format": FORMAT,
            "device": self.device,
            "conditions": self.conditions,
            "warnings": list(self.warnings),
            "timings": [timing.as_dict() for timing in self.timings],
        }


def cuda_report(result: CudaResult) -> Report:
    """One row a part and way."""
    rows = []
    for timing in result.timings:
        found = percentiles(timing.samples_ms)
        ways = "in and out" if timing.transfers else "none"
        graph = "on" if timing.cuda_graph else "off"
        latency = [f"{found[name]:.3f}" for name in ("p50", "p90", "p99")]
        rows.append(
            (
                timing.bundle,
                timing.part,
                str(timing.batch),
                graph,
                ways,
                *latency,
                f"{timing.images_per_s:.0f}",
            )
        )
    columns = ("bundle", "part", "batch", "CUDA graph", "transfers", "p50 ms", "p90 ms", "p99 ms", "images/s")
    runtimes = "; ".join(dict.fromkeys(timing.runtime for timing in result.timings))
    caption = f"{runtimes}. {result.conditions['timed']}"
    return Report(
        "Latency on the GPU", [Table("Parts", columns, rows, numeric=(2, 5, 6, 7, 8), caption=caption)]
    )
