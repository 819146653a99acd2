"""The latency of merge schedules on this machine, each measured as the graph that a bundle has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from numpy.typing import NDArray

from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs.files import write_graphs
from morvit_deploy.exporters.onnx.graphs.trace import trace
from morvit_deploy.exporters.onnx.run import OnnxRunner
from morvit_deploy.files import temporary
from morvit_deploy.graph.pieces import Whole
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.merges.schedules import MergeSchedule
from morvit_deploy.model.merges.tokens import with_schedule
from morvit_deploy.model.plan import own_plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.timing.loop import Amount, CallLane, Calls, Stages, measure, parts_of

BLOCKS, RUNS, WARMUP = 5, 10, 3


def measure_latency(
    model: MoRViT,
    schedules: Sequence[MergeSchedule | None],
    *,
    threads: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> list[float]:
    """Return the median milliseconds of one image for each schedule; None is the unmerged ViT.

    Measured in float32 with ONNX Runtime; the schedules take turns.
    """
    amount = Amount(RUNS, BLOCKS, WARMUP, starts=1, least=1)
    stages = Stages(share=progress, total=len(schedules) + parts_of(len(schedules), amount))
    with temporary("merges") as folder, ExitStack() as opened:
        names, image = _written(model, schedules, folder, stages)
        runners = [opened.enter_context(OnnxRunner(folder / name, folder, threads)) for name in names]
        lanes = [
            CallLane(name=name, call=partial(runner.run, image))
            for name, runner in zip(names, runners, strict=True)
        ]
        measure(Calls(), lanes, amount, stages)
    return [median(block.median_ms for block in lane.blocks) for lane in lanes]


def _written(
    model: MoRViT, schedules: Sequence[MergeSchedule | None], folder: Path, stages: Stages
) -> tuple[list[str], dict[str, NDArray[Any]]]:
    """Write a graph for each schedule, which share their weights; returns their names, and the input for all."""
    graphs = {}
    for number, schedule in enumerate(schedules):
        with stages.part(f"tracing schedule {number + 1} of {len(schedules)}"):
            merged = model if schedule is None else with_schedule(model, schedule)
            graph = unroll(merged, own_plan(merged.config).buckets[0], Options())
            image = example_image(graph, 1)
            graphs[f"{number}.onnx"] = trace(Whole(graph), [image], dynamic=False)[0]
    write_graphs(folder, graphs)
    return list(graphs), {"image": image.numpy()}
