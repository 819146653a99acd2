"""One request to measure bundles. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morvit_deploy.measuring.core.devices import check_targets
from morvit_deploy.measuring.core.inputs import Source, Subject, prepare
from morvit_deploy.timing.loop import Amount, Stages

TIMED = (
    "warm runs: uint8 pixels in memory to every output, copies included, decoding of files excluded; "
    "cold start: new process to first result, interpreter and imports included, files already in the system's cache"
)


@dataclass(frozen=True)
class BenchRequest:
    """Bundles, device, inputs, amount and progress callbacks; `threads` None: all cores."""

    folders: tuple[Path, ...]
    device: str
    source: Source
    amount: Amount
    threads: int | None
    stages: Stages
    profile: bool = False  # also where the time goes, by ONNX Runtime's profiler

    def subjects(self, scratch: Path) -> list[Subject]:
        """Check the bundles and write their inputs; BundleError, ImageError or TargetError."""
        self.stages.stage("checking bundles and inputs")
        subjects = [
            prepare(folder, self.source, scratch / f"{i}.npy") for i, folder in enumerate(self.folders)
        ]
        check_targets(self.device, subjects)
        return subjects


def settings(source: Source, amount: Amount, timed: str = TIMED) -> dict[str, Any]:
    """The settings of a measurement, for its conditions."""
    return {
        "blocks": amount.blocks,
        "warmup_runs_per_block": amount.warmup,
        "starts": amount.starts,
        "inputs": source.named,
        "timed": timed,
    }
