"""Runs an ONNX bundle with ONNX Runtime on the CPU. No torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.agent.core.running import Runner
from morvit_deploy.agent.run_ort import OrtRunner, check_onnxruntime, session_options
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.session import HostDispatch
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.onnx.graphs.names import GRAPH, WEIGHTS, graph_files
from morvit_deploy.exporters.onnx.releases import lowest_of
from morvit_deploy.machine.agent_errors import own_errors
from morvit_deploy.machine.this import checked_threads

if TYPE_CHECKING:
    import onnx  # named only
    from onnxruntime import SessionOptions


def open_onnx(
    folder: Path, manifest: Manifest, threads: int | None, probes: bool = False, bucket: str | None = None
) -> Runner:
    """The runner of a bundle whose files have been checked; with `bucket`, of that bucket's graph alone.

    With `probes` the graph of one bucket also returns the values inside it. TargetError if ONNX Runtime is too old.
    """
    files = graph_files(manifest.dispatch, manifest.plan)
    unlisted = {*files.values(), WEIGHTS} - {file.path for file in manifest.files}
    if unlisted:  # what is not listed was not checked
        raise BundleError(f"{folder / 'manifest.json'} does not list {sorted(unlisted)}; export it again")
    check_installed(folder, manifest)
    settings = (folder, threads, manifest.versions.get("onnxruntime"))
    integers = multiplies_integers(manifest)
    if bucket or (probes and not manifest.plan.adaptive):
        model = alone(folder, manifest, bucket, probes)
        return OnnxRunner(model.SerializeToString(), *settings, integers=integers)
    if manifest.dispatch != "host":
        runner = OnnxRunner(folder / GRAPH, *settings, integers=integers)
        _check_ports(folder, manifest, runner)
        return runner
    stem = OnnxRunner(folder / files["stem"], *settings, alone=False, integers=integers)
    handed = {value.name for value in stem.session.get_outputs()} - {port.name for port in manifest.outputs}
    if handed != (listed := {port.name for port in manifest.carried}):
        raise BundleError(
            f"{folder}: its manifest lists the carried values {listed}, the stem returns {handed}; export it again"
        )

    def trunk(name: str) -> OnnxRunner:
        return OnnxRunner(folder / files[name], *settings, alone=False, integers=integers)

    return HostDispatch(manifest, stem, trunk)


def profiled(
    folder: Path, manifest: Manifest, threads: int, bucket: str
) -> tuple[onnx.ModelProto, Callable[[], SessionOptions]]:
    """One bucket as a plain graph, and a function that makes the options of sessions that run it."""
    integers = multiplies_integers(manifest)
    return alone(folder, manifest, bucket, False), partial(
        session_options, folder, threads, integers=integers
    )


def check_installed(folder: Path, manifest: Manifest) -> None:
    """TargetError if the ONNX Runtime here is older than the bundle's lowest."""
    with own_errors():
        check_onnxruntime(lowest_of(folder, manifest), str(folder))


def multiplies_integers(manifest: Manifest) -> bool:
    """Does ONNX Runtime use int8 kernels? Not for flavor `trt`, which relies on TensorRT's 32-bit sums."""
    return manifest.lowering is None or manifest.lowering.flavor != "trt"


class OnnxRunner(OrtRunner):
    """One ONNX Runtime session on the CPU provider; BundleError where it refuses the graph."""

    def __init__(
        self,
        graph: Path | bytes,
        folder: Path,
        threads: int | None,
        written_with: str | None = None,
        *,
        alone: bool = True,
        integers: bool = True,
    ) -> None:
        threads = checked_threads(threads)
        with own_errors():
            super().__init__(graph, folder, threads, written_with, alone=alone, integers=integers)


def _check_ports(folder: Path, manifest: Manifest, runner: OnnxRunner) -> None:
    """The graph's inputs and outputs are those of the manifest."""
    listed = {port.name: list(port.shape) for port in (*manifest.inputs, *manifest.outputs)}
    values = (*runner.session.get_inputs(), *runner.session.get_outputs())
    found = {value.name: list(value.shape) for value in values}
    if listed != found:
        raise BundleError(
            f"{folder}: the manifest lists the ports {listed}, the graph has {found}; export it again"
        )


def alone(
    folder: Path, manifest: Manifest, bucket: str | None, probes: bool, *, weights: bool = False
) -> onnx.ModelProto:
    """One bucket's graph as the bundle holds it, perhaps with the values inside it as further outputs."""
    import onnx  # only verify and bench ask for a bucket alone

    from morvit_deploy.exporters.onnx.graphs.plain import plain_graph

    model = plain_graph(folder, manifest, bucket or manifest.plan.buckets[0].name, weights=weights)
    if probes:
        inside = {name for node in model.graph.node for name in node.output}
        outputs = {value.name for value in model.graph.output}
        names = [name for name in manifest.probes_of(bucket) if name in inside and name not in outputs]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return model
