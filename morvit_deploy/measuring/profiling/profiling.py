"""Profiles one bucket of a bundle with ONNX Runtime's own profiler, in turn with runs that are not profiled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from morvit_deploy.agent.core.running import normalise
from morvit_deploy.errors import TargetError
from morvit_deploy.exporters.onnx.graphs.graphs import copy_of
from morvit_deploy.exporters.onnx.graphs.macs import at_batch
from morvit_deploy.exporters.targets import find_target
from morvit_deploy.machine.extras import require
from morvit_deploy.measuring.core.inputs import Subject
from morvit_deploy.measuring.profiling.bounds import Machine
from morvit_deploy.measuring.profiling.events import node_times
from morvit_deploy.measuring.profiling.nodes import Node, find_nodes
from morvit_deploy.measuring.profiling.rates import Rates
from morvit_deploy.measuring.profiling.result import Profile, profiled_steps, without_overhead
from morvit_deploy.measuring.profiling.steps import find_steps
from morvit_deploy.timing.loop import Amount, CallLane, Calls, Stages, measure

if TYPE_CHECKING:
    import onnx  # named only

BLOCK_MS = 200.0  # of the slowest lane
MOST_EVENTS = (
    400_000  # that ONNX Runtime's profiler keeps with room to spare: it drops what exceeds a million
)
_EXTERNAL = "session.optimized_model_external_initializers_"


@dataclass(frozen=True)
class Graph:
    """One bucket of a bundle as a plain graph, and how it is run."""

    model: onnx.ModelProto
    options: Callable[[], Any]  # new SessionOptions
    inputs: Sequence[dict[str, Any]]  # of runs, in turn

    def open(self, options: Any) -> Any:
        """A session of it."""
        return ort.InferenceSession(
            self.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )


def check_profiled(subjects: Sequence[Subject]) -> None:
    """TargetError for a bundle that another runtime runs, MissingExtraError where graphs cannot be read."""
    for subject in subjects:
        target = find_target(subject.manifest.target)
        if target.profiled is None:
            able = "the onnx bundle of the same checkpoint"
            raise TargetError(
                f"--profile reads ONNX Runtime's profiler, and {subject.bundle} of target {target.name} is run by "
                f"{target.runs_here(set(), False)}; profile {able}, or leave --profile out"
            )
    require(("onnx", "onnxsim"), "bench --profile", "export")


def profile_bundle(
    subject: Subject, bucket: str, threads: int, amount: Amount, stages: Stages, scratch: Path
) -> Profile:
    """The profile of one bucket; `scratch` is a folder for the profiler's files, which are removed."""
    stages.stage(f"profiling {subject.bundle}")
    graph = _graph_of(subject, bucket, threads)
    steps = find_steps(_at_batch(graph.model, subject), subject.manifest.probes_of(bucket))
    nodes = find_nodes(_optimized(graph, scratch), steps)
    plain = CallLane(name="without the profiler", call=_runs(graph.open(graph.options()), graph.inputs))
    with _profiled(graph, scratch) as (session, times):
        profiled = CallLane(name="with the profiler", call=_runs(session, graph.inputs))
        measure(Calls(), [plain, profiled], _amount(amount, len(nodes)), Stages())
        runs = sum(len(block.ms) for block in profiled.blocks)
        found = times(runs)
    latency_ms = _typical_ms(plain)
    times_of, off_ms, scale = without_overhead(found, latency_ms)
    known = {
        name: (nodes[name], ms)
        for name, ms in times_of.items()
        if name in nodes and nodes[name].step is not None
    }
    unknown = [ms for name, ms in times_of.items() if name not in known]
    stages.stage("measuring what this machine can do")
    return Profile(
        bucket=bucket,
        batch=subject.batch,
        runs=runs,
        latency_ms=latency_ms,
        profiled_ms=_typical_ms(profiled),
        nodes_ms=sum(found.values()),
        overhead_us=1e3 * off_ms,
        scale=scale,
        steps=profiled_steps(steps.names, steps.macs, list(known.values())),
        unknown_ms=sum(unknown),
        unknown_nodes=len(unknown),
        machine=_machine(graph, list(nodes.values()), amount),
    )


def _amount(amount: Amount, nodes: int) -> Amount:
    """Fewer runs where the profiler's file would be too large: it has about a kilobyte for each node of a run."""
    most = max(amount.least, MOST_EVENTS // max(1, amount.blocks * nodes))
    runs = None if amount.runs is None else min(amount.runs, most)
    return replace(amount, runs=runs, starts=1, block_ms=BLOCK_MS, most=min(amount.most, most))


def _machine(graph: Graph, nodes: Sequence[Node], amount: Amount) -> Machine:
    """What this machine can do in the arithmetic that most of the bundle's weights are for."""
    integers = sum(node.weight_bytes for node in nodes if node.integers)
    rates = Rates(graph.options, integers=2 * integers > sum(node.weight_bytes for node in nodes))
    measure(Calls(), rates.lanes, replace(amount, runs=None, starts=1, block_ms=BLOCK_MS), Stages())
    return rates.machine()


def _at_batch(model: onnx.ModelProto, subject: Subject) -> onnx.ModelProto:
    """The graph with the shapes of one batch size; of a dynamic one they follow from constants, which are loaded."""
    if subject.manifest.batch != "dynamic":
        return model
    import onnx

    whole = copy_of(model)
    onnx.load_external_data_for_model(whole, str(subject.bundle))
    return at_batch(whole, subject.batch)


def _graph_of(subject: Subject, bucket: str, threads: int) -> Graph:
    manifest = subject.manifest
    model, options = find_target(manifest.target).load_profiled()(subject.bundle, manifest, threads, bucket)
    pixels = np.load(subject.pixels, mmap_mode="r", allow_pickle=False)
    (name,) = (value.name for value in model.graph.input)
    given = [np.ascontiguousarray(batch) for batch in pixels[:16]]
    if manifest.input != "uint8":
        given = [normalise(batch, manifest.preprocess.mean, manifest.preprocess.std) for batch in given]
    return Graph(model, options, [{name: batch} for batch in given])


def _optimized(graph: Graph, scratch: Path) -> onnx.ModelProto:
    """The graph as ONNX Runtime runs it, without its weights; by a session of its own, which saving may change."""
    import onnx

    file, options = scratch / "optimized.onnx", graph.options()
    options.optimized_model_filepath = str(file)
    options.add_session_config_entry(f"{_EXTERNAL}file_name", "optimized.bin")
    options.add_session_config_entry(f"{_EXTERNAL}min_size_in_bytes", "1024")
    try:
        graph.open(options)
        return onnx.load(file, load_external_data=False)
    finally:
        for written in scratch.glob("optimized.*"):
            written.unlink()


@contextmanager
def _profiled(graph: Graph, scratch: Path) -> Iterator[tuple[Any, Callable[[int], dict[str, float]]]]:
    """A session that is profiled, and a function that ends it and reads the times of its last runs."""
    options = graph.options()
    options.enable_profiling, options.profile_file_prefix = True, str(scratch / "profile")
    session = graph.open(options)
    ended: list[Path] = []

    def times(runs: int) -> dict[str, float]:
        ended.append(Path(session.end_profiling()))
        return node_times(ended[0], runs)

    try:
        yield session, times
    finally:
        if not ended:
            session.end_profiling()  # the file is closed before its folder is removed
        for written in scratch.glob("profile*.json"):
            written.unlink()


def _runs(session: Any, inputs: Sequence[dict[str, Any]]) -> Callable[[], object]:
    names, given = [output.name for output in session.get_outputs()], cycle(inputs)
    return lambda: session.run(names, next(given))


def _typical_ms(lane: CallLane) -> float:
    return median(ms for block in lane.blocks for ms in block.ms)
