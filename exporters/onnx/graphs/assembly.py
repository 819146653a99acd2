"""Traces a plan's graphs into pieces, and assembles pieces into a bundle's files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch

from morvit_deploy.bundle.manifest import Port
from morvit_deploy.exporters.base import Written
from morvit_deploy.exporters.onnx.graphs.branches import integers_inside, separate
from morvit_deploy.exporters.onnx.graphs.dispatch import ORDER, self_dispatching
from morvit_deploy.exporters.onnx.graphs.dividing import Job, Traced, divided, processes_for
from morvit_deploy.exporters.onnx.graphs.files import write_graphs
from morvit_deploy.exporters.onnx.graphs.graphs import computed_values
from morvit_deploy.exporters.onnx.graphs.names import GRAPH, graph_files
from morvit_deploy.exporters.onnx.graphs.trace import trace
from morvit_deploy.graph.pieces import EmptyResults, StemPart, TrunkPart, Whole, name_carried
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.macs import dense_macs
from morvit_deploy.model.plan import Plan

WHOLE, STEM = "whole graph", "stem"  # names of pieces; every other is a bucket's trunk
LARGE_MACS = (
    1e9  # per image: smaller models have fewer layers, and are traced before another process has started
)


@dataclass(frozen=True)
class Pieces:
    """The only bucket's graph as WHOLE, or STEM and a trunk for each bucket; probes are named as in the files."""

    parts: dict[str, onnx.ModelProto]
    probes: tuple[str, ...]
    carried: tuple[str, ...] = ()
    unanswered: onnx.ModelProto | None = None  # for one graph that dispatches itself

    def map(self, change: Callable[[str, onnx.ModelProto], onnx.ModelProto]) -> Pieces:
        """The same with each part changed."""
        return replace(self, parts={name: change(name, part) for name, part in self.parts.items()})

    @property
    def trunks(self) -> dict[str, onnx.ModelProto]:
        """Bucket to its trunk."""
        return {name: part for name, part in self.parts.items() if name not in (WHOLE, STEM)}


def trace_pieces(
    graphs: dict[str, StaticMoRViT],
    plan: Plan,
    image: torch.Tensor,
    *,
    dynamic: bool,
    inside: bool,
    progress: Callable[[float], None] = lambda share: None,
) -> Pieces:
    """Trace the static graphs, for one self-dispatching graph (`inside`) or for several files.

    `progress` is called with the share of the graphs that are traced. Those of a large model are divided among
    processes.
    """
    first = next(iter(graphs.values()))
    if not plan.adaptive:
        model, probes = trace(Whole(first), [image], dynamic=dynamic)
        return Pieces({WHOLE: model}, probes)
    carried, examples = name_carried(first, image)
    trunks = [TrunkPart(graph, carried, inside=inside) for graph in graphs.values()]
    jobs = [Job(StemPart(first, plan, carried, together=inside), [image])]
    jobs += [Job(trunk, examples) for trunk in trunks]
    if inside:
        jobs.append(Job(EmptyResults(trunks[-1]), examples))
    (stem, probes), *others = _traced(jobs, first, dynamic=dynamic, progress=progress)
    parts = {STEM: stem}
    named = (*(name for name in carried.values() if not name.startswith("stem.")), *probes)
    for bucket, (parts[bucket], probes) in zip(graphs, others, strict=False):
        named += tuple(f"{bucket}/{name}" for name in probes)
    unanswered = others[-1][0] if inside else None
    return Pieces(parts, named, tuple(carried.values()), unanswered)


def _traced(
    jobs: list[Job], graph: StaticMoRViT, *, dynamic: bool, progress: Callable[[float], None]
) -> list[Traced]:
    """The pieces of all jobs; `graph` is one of the buckets'."""
    if dense_macs(graph.config) >= LARGE_MACS and (processes := processes_for(jobs)) > 1:
        return divided(jobs, dynamic=dynamic, processes=processes, progress=progress)
    pieces = []
    for number, job in enumerate(jobs):
        progress(number / len(jobs))
        pieces.append(trace(job.module, job.example, dynamic=dynamic))
    return pieces


def write_pieces(pieces: Pieces, plan: Plan, folder: Path, *, inside: bool = False) -> Written:
    """Assemble the pieces and write a bundle's graph files and weights; `inside` moves int8 weights into branches."""
    if not plan.adaptive:
        model = pieces.parts[WHOLE]
        return _written(write_graphs(folder, {GRAPH: model}), [model], pieces)
    if pieces.unanswered is None:
        parts = separate(pieces.parts[STEM], pieces.trunks)
        names = graph_files("host", plan)
        files = write_graphs(folder, {names[part]: model for part, model in parts.items()})
        return _written(files, [*parts.values()], pieces)
    model = self_dispatching(pieces.parts[STEM], pieces.trunks, pieces.unanswered)
    if inside:
        integers_inside(model)
    return _written(write_graphs(folder, {GRAPH: model}), [model], pieces)


def _written(files: list[str], models: list[onnx.ModelProto], pieces: Pieces) -> Written:
    outputs = {value.name: value for model in models for value in model.graph.output}
    carried = pieces.carried if pieces.unanswered is None else ()
    # joining the pieces drops what only the overflow of `full` reads
    computed = {name for model in models for name in computed_values(model.graph)}
    return Written(
        files=files,
        inputs=tuple(_port(value) for value in models[0].graph.input),
        outputs=tuple(_port(outputs[name]) for name in ORDER if name in outputs),
        carried=tuple(_port(value) for name, value in outputs.items() if name in carried),
        probes=tuple(name for name in pieces.probes if name in computed),
    )


def _port(value: onnx.ValueInfoProto) -> Port:
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    shape = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
    return Port(name=value.name, dtype=dtype, shape=shape)
