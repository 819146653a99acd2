"""The latency of schedules on this machine, measured on trunks of several sizes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.calibration.buckets.costs import MeasuredCost
from morvit_deploy.calibration.routing.statistics import Thresholds
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx.graphs.files import write_graphs
from morvit_deploy.exporters.onnx.graphs.trace import trace
from morvit_deploy.exporters.onnx.run import OnnxRunner
from morvit_deploy.files import temporary
from morvit_deploy.graph.pieces import StemPart, TrunkPart, name_carried
from morvit_deploy.graph.style.styles import Options
from morvit_deploy.graph.unroll import unroll
from morvit_deploy.model.checkpoint import load_checkpoint
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import FULL, Bucket, Plan
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.timing.loop import Amount, CallLane, Calls, Stages, measure, parts_of

PARTS = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # fractions of the N patch tokens to hold
BLOCKS, RUNS, WARMUP = 5, 10, 3


def measure_costs(
    checkpoint: Path,
    thresholds: Thresholds | None,
    *,
    threads: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> MeasuredCost:
    """Measure the stem, and trunks that hold the same number of tokens at every step, in median milliseconds.

    Measured for one image in float32 with ONNX Runtime. Only which steps have `thresholds` matters. None means depths
    chosen up front, or a top-k schedule, which is measured as if every step were routed.
    """
    model = load_checkpoint(checkpoint)
    plan = equal_steps(model.config, thresholds)
    amount = Amount(RUNS, BLOCKS, WARMUP, starts=1, least=1)
    rungs = len(plan.buckets)
    stages = Stages(share=progress, total=rungs + parts_of(rungs + 1, amount))
    with temporary("cost") as scratch, ExitStack() as opened:
        lanes = [
            CallLane(name=name, call=run)
            for name, run in _graphs(model, plan, scratch, threads, opened, stages)
        ]
        measure(Calls(), lanes, amount, stages)
    stem_ms, *trunks_ms = (median(block.median_ms for block in lane.blocks) for lane in lanes)
    held = tuple(bucket.capacity[-1] for bucket in plan.buckets)
    return MeasuredCost(held, tuple(trunks_ms), stem_ms, unrouted(model.config, thresholds))


def _graphs(
    model: MoRViT, plan: Plan, folder: Path, threads: int | None, opened: ExitStack, stages: Stages
) -> list[tuple[str, Callable[[], object]]]:
    """Export the stem and each trunk to `folder`; returns a file name and a function that runs it for each."""
    graph = unroll(model, plan.buckets[0], Options(), plan)
    image = example_image(graph, 1)
    carried, examples = name_carried(graph, image)
    graphs = {"stem.onnx": trace(StemPart(graph, plan, carried), [image], dynamic=False)[0]}
    for bucket in plan.buckets:
        with stages.part(f"tracing {bucket.name}"):
            part = TrunkPart(graph.for_bucket(bucket), carried)
            graphs[f"{bucket.name}.onnx"] = trace(part, examples, dynamic=False)[0]
    write_graphs(folder, graphs)
    runners = [opened.enter_context(OnnxRunner(folder / name, folder, threads)) for name in graphs]
    inputs = dict(zip(carried.values(), (example.numpy() for example in examples), strict=True))
    feeds: list[Arrays] = [{"image": image.numpy()}, *[inputs] * len(plan.buckets)]
    calls = [partial(runner.run, feed) for runner, feed in zip(runners, feeds, strict=True)]
    return list(zip(graphs, calls, strict=True))


def unrouted(config: Config, thresholds: Thresholds | None) -> int:
    """Return how many initial steps every token runs in every bucket."""
    if config.record.depth_upfront:  # every token runs the first layer
        return min(1, config.num_steps - 1)
    return next((step for step, tau in enumerate(thresholds or ()) if tau is not None), 0)


def equal_steps(config: Config, thresholds: Thresholds | None) -> Plan:
    """Return a plan of buckets with equal capacities at all routed steps, for measurements only."""
    mode = config.record.ladder_mode
    everyone = (config.num_patches,) * config.num_steps
    held = sorted({max(1, round(part * config.num_patches)) for part in PARTS})
    given = (0.0,) * config.num_steps if thresholds is None else thresholds
    taus = tuple(None if threshold is None else 0.0 for threshold in given)
    plan = Plan(
        format="morvit-plan/1",
        mode=mode,
        thresholds=taus if mode == "threshold" else None,
        buckets=(Bucket(name=FULL, capacity=everyone, macs=1, upto=config.num_patches),),
    )
    lead = unrouted(config, thresholds)
    rungs = [everyone[:lead] + (number,) * (config.num_steps - lead) for number in held[:-1]]
    buckets = [Bucket(name=f"b{i}", capacity=rung, macs=1, upto=held[i]) for i, rung in enumerate(rungs)]
    return plan.model_copy(update={"buckets": (*buckets, *plan.buckets)})
