"""Runs a TensorRT bundle: its engines on an NVIDIA GPU, elsewhere the same graphs with ONNX Runtime. No torch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import get_args

from morvit_deploy.agent.core.running import Arrays, Chained, Runner
from morvit_deploy.agent.run_ort import NOT_INTEGERS
from morvit_deploy.agent.trt import engines as trt_engines
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.session import HostDispatch
from morvit_deploy.errors import BundleError
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.onnx.run import OnnxRunner, alone, open_onnx
from morvit_deploy.exporters.trt.engine import Cuda, TrtEngine
from morvit_deploy.exporters.trt.flavors import Here, is_installed, load, look
from morvit_deploy.exporters.trt.form import TrtForm
from morvit_deploy.exporters.trt.names import BUILD, Flavor

ON_CPU = "ONNX Runtime on the CPU and on the same graph: there is no GPU here, so no engine was run"
INSIDE = "{engine}; single buckets and values inside are ONNX Runtime's, on the same graph"
ROUNDED = " (it has no bf16 kernels: computed in fp32, every bf16 value rounded where it arises)"


def open_trt(
    folder: Path, manifest: Manifest, threads: int | None, probes: bool = False, bucket: str | None = None
) -> Runner:
    """The runner of a bundle whose files have been checked; with `bucket`, of that bucket alone.

    On a GPU the engines run. A single bucket of a self-dispatching engine, and values inside, come from ONNX Runtime
    on the same graph. Without a GPU, ONNX Runtime runs everything, and `runtime` says so.
    Raises BundleError for engines of another machine, TargetError when a GPU is here but no TensorRT.
    """
    here = look_for(folder, manifest)
    if here.device is None:
        return on_cpu(folder, manifest, threads, probes, bucket)
    engines = open_engines(folder, manifest, here)
    if probes or (bucket is not None and manifest.dispatch == "graph"):
        inside = on_cpu(folder, manifest, threads, probes, bucket)
        inside.runtime = INSIDE.format(engine=f"{here.product} on {here.device['name']}")
        return inside if manifest.dispatch == "graph" else Probed(_alone(manifest, engines, bucket), inside)
    if bucket or not manifest.plan.adaptive:
        return _alone(manifest, engines, bucket)
    if manifest.dispatch == "graph":
        return engines("model")
    runner = HostDispatch(manifest, engines("stem"), engines)
    return runner


def look_for(folder: Path, manifest: Manifest) -> Here:
    """What this machine has of the bundle's flavor, or of the engines' flavor where only that is installed."""
    flavor = TrtForm.of(manifest).flavor
    if not is_installed(flavor):
        with contextlib.suppress(trt_engines.EngineError):
            built: Flavor | None = trt_engines.read_engines(folder / BUILD).get("flavor")
            if built is not None and built in get_args(Flavor) and is_installed(built):
                return look(built)
    return look(flavor)


def open_engines(
    folder: Path, manifest: Manifest, here: Here, *, cuda_graphs: bool | None = None
) -> Callable[[str], TrtEngine]:
    """Loader of a part's engine; `cuda_graphs` defaults to engines of fixed shapes without conditionals.

    Raises BundleError for engines that are missing, damaged, or of another version, flavor or GPU.
    """
    build, trt = folder / BUILD, load(here.flavor)
    assert here.device is not None and here.version is not None
    try:
        record = trt_engines.read_engines(build)
        refused = trt_engines.why_refused(
            record, here.flavor, here.version, here.device["compute_capability"]
        )
    except trt_engines.EngineError as error:
        raise BundleError(f"{error}, or `morvit-deploy build {folder}`") from None
    if refused is not None:
        raise BundleError(f"{build}: {refused}, or `morvit-deploy build {folder}`")
    cuda = Cuda()
    graphs = manifest.dispatch != "graph" if cuda_graphs is None else cuda_graphs

    def open_part(name: str) -> TrtEngine:
        try:
            content = trt_engines.read_engine(build, record, name)
        except trt_engines.EngineError as error:
            raise BundleError(str(error)) from None
        host_code = trt_engines.has_host_code(record, name)
        engine = TrtEngine(trt, cuda, content, name, graph=graphs, host_code=host_code)
        engine.runtime = f"{here.product} on {here.device['name']}" if here.device else here.product
        return engine

    return open_part


def graphs_of(manifest: Manifest) -> Manifest:
    """The manifest for the build folder's graphs alone, which form an ONNX bundle."""
    named = {*graph_files(manifest.dispatch, manifest.plan).values(), "weights.bin"}
    files = tuple(
        file.model_copy(update={"path": file.path.removeprefix(f"{BUILD}/")})
        for file in manifest.files
        if file.path.startswith(f"{BUILD}/") and file.path.removeprefix(f"{BUILD}/") in named
    )
    return manifest.model_copy(update={"files": files})


class Probed(Runner):
    """Results from a bucket's engines, values inside from ONNX Runtime on the same graph."""

    def __init__(self, engines: Runner, inside: Runner) -> None:
        self.engines, self.inside = engines, inside
        self.runtime = INSIDE.format(engine=engines.runtime)

    def run(self, feeds: Arrays) -> Arrays:
        return self.inside.run(feeds) | self.engines.run(feeds)

    @property
    def remarks(self) -> tuple[str, ...]:
        return self.engines.remarks

    def close(self) -> None:
        self.engines.close()
        self.inside.close()


def _alone(manifest: Manifest, engines: Callable[[str], TrtEngine], bucket: str | None) -> Runner:
    if not manifest.plan.adaptive:
        return engines("model")
    assert bucket is not None and manifest.dispatch == "host"
    return Chained(engines("stem"), engines(bucket), [port.name for port in manifest.carried])


def on_cpu(
    folder: Path,
    manifest: Manifest,
    threads: int | None = None,
    probes: bool = False,
    bucket: str | None = None,
) -> Runner:
    """The bundle's own graphs in ONNX Runtime."""
    inside, build = graphs_of(manifest), folder / BUILD
    runner = (
        _rounded(build, inside, threads, probes, bucket)
        if manifest.precision == "bf16"
        else open_onnx(build, inside, threads, probes, bucket)
    )
    runner.runtime = ON_CPU + {"bf16": ROUNDED, "int8": NOT_INTEGERS}.get(manifest.precision, "")
    return runner


def _rounded(
    build: Path, manifest: Manifest, threads: int | None, probes: bool, bucket: str | None
) -> Runner:
    """A bf16 bundle's graphs, each rewritten in memory."""
    import onnx  # noqa: TID251  # only without a GPU that runs bf16

    from morvit_deploy.exporters.onnx.graphs.plain import read_graph
    from morvit_deploy.exporters.onnx.low.bfloat import rounded_in_fp32

    def runner(model: onnx.ModelProto) -> OnnxRunner:
        return OnnxRunner(rounded_in_fp32(model).SerializeToString(), build, threads)

    def part(name: str) -> OnnxRunner:
        return runner(read_graph(build / f"{name}.onnx", weights=True))

    if bucket is not None or probes:
        return runner(alone(build, manifest, bucket, probes, weights=True))
    if manifest.dispatch != "host":
        return part("model")
    return HostDispatch(manifest, part("stem"), part)
