"""The targets there are. A target's modules load only when it is used: running one needs no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.bundle.manifest import Manifest, open_manifest
from morvit_deploy.bundle.session import Runner, Session
from morvit_deploy.errors import TargetError

if TYPE_CHECKING:
    from morvit_deploy.exporters.base import Exporter


@dataclass(frozen=True)
class Target:
    """Where a target's exporter class and runner function are, as `module:name`."""

    exporter: str
    runner: str
    runs_on: str
    precision: str = "fp32"  # unless another is asked for
    devices: tuple[str, ...] = ()  # names of `bench --device` that can measure it
    board_files: str | None = None  # place of what says which files a board needs; None: no board runs it

    def load_exporter(self) -> Exporter:
        """The exporter, ready to use; imports torch."""
        return _load(self.exporter)()

    def load_runner(self) -> Callable[..., Runner]:
        """`open(folder, manifest, threads, probes, bucket) -> Runner`."""
        return _load(self.runner)

    def load_board_files(self) -> Callable[..., Any]:
        """What says which files a board needs; TargetError where no board runs this target."""
        if self.board_files is None:
            able = ", ".join(name for name, target in targets().items() if target.board_files)
            raise TargetError(f"a target of {self.runs_on} runs on no board; what can be sent to one: {able}")
        return _load(self.board_files)


TARGETS = {
    "onnx": Target(
        exporter="morvit_deploy.exporters.onnx.export:OnnxExporter",
        runner="morvit_deploy.exporters.onnx.run:open_onnx",
        runs_on="ONNX Runtime, CPU",
        devices=("cpu", "cuda", "jetson", "ssh"),
        board_files="morvit_deploy.measuring.board.shipping:onnx_parts",
    ),
    "coreml": Target(
        exporter="morvit_deploy.exporters.coreml.export:CoremlExporter",
        runner="morvit_deploy.exporters.coreml.run:open_coreml",
        runs_on="Core ML; elsewhere an interpreter",
        precision="fp16",
        devices=("mac", "iphone"),
    ),
    "trt": Target(
        exporter="morvit_deploy.exporters.trt.export:TrtExporter",
        runner="morvit_deploy.exporters.trt.run:open_trt",
        runs_on="TensorRT or TensorRT-RTX on an NVIDIA GPU; elsewhere ONNX Runtime on the same graph",
        precision="fp16",
        devices=("cuda", "jetson"),
        board_files="morvit_deploy.measuring.board.shipping:trt_parts",
    ),
}


def targets() -> dict[str, Target]:
    """Every target by its name."""
    return TARGETS


def find_target(name: str) -> Target:
    """The target called `name`; TargetError lists what there is."""
    if name not in TARGETS:
        raise TargetError(f"got target {name!r}; this version exports to: {', '.join(TARGETS)}")
    return TARGETS[name]


def open_bundle(
    folder: str | Path, *, threads: int | None = None, probes: bool = False, bucket: str | None = None
) -> Session:
    """Check a bundle and load its graphs, without torch.

    `threads` is the number of compute threads (default: all cores this process may use). With `bucket` every image
    is run in that bucket, whatever it needs. With `probes` the graph of that bucket (or of the only one) also returns
    the values that `verify` compares step by step. Raises BundleError, PlanError or TargetError.
    """
    folder = Path(folder)
    manifest = open_manifest(folder)
    return Session(
        folder, manifest, open_runner(folder, manifest, threads=threads, probes=probes, bucket=bucket)
    )


def open_runner(
    folder: Path,
    manifest: Manifest,
    *,
    threads: int | None = None,
    probes: bool = False,
    bucket: str | None = None,
) -> Runner:
    """Load the graphs of a bundle whose files have been checked."""
    if bucket is not None:
        manifest.plan.bucket(bucket)  # PlanError for a name that it does not have
    return find_target(manifest.target).load_runner()(folder, manifest, threads, probes, bucket)


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)
