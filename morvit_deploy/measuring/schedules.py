"""What a schedule costs in milliseconds on this machine: trunks of several sizes, measured in blocks in turn."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from morvit_deploy.calibration.costs import MeasuredCost, Thresholds
from morvit_deploy.checkpoint import load_checkpoint
from morvit_deploy.config import Config
from morvit_deploy.ends import Options
from morvit_deploy.exporters.base import example_image
from morvit_deploy.exporters.onnx_files import write_graphs
from morvit_deploy.exporters.onnx_parts import StemPart, TrunkPart, name_carried
from morvit_deploy.exporters.onnx_pieces import trace
from morvit_deploy.exporters.run_onnx import OnnxRunner
from morvit_deploy.plan import FORMAT, FULL, Bucket, Plan
from morvit_deploy.runtime import Arrays
from morvit_deploy.unroll import unroll

PARTS = (0, 1 / 32, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)  # of the N patch tokens, held at every step
BLOCKS, RUNS, WARMUP = 5, 10, 3


def measure_costs(
    checkpoint: Path,
    thresholds: Thresholds | None,
    *,
    threads: int | None = None,
    progress: Callable[[float], None] = lambda share: None,
) -> MeasuredCost:
    """Median milliseconds of the stem, and of trunks that hold the same number of tokens at every step.

    For one image in float32 on ONNX Runtime. `thresholds` None: graphs of top-k, or of token_choice.
    """
    model = load_checkpoint(checkpoint)
    config = model.config
    held = sorted({round(part * config.num_patches) for part in PARTS})
    if config.routing == "expert_choice" and thresholds is None:
        held = [number for number in held if number]  # top-k keeps one at least
    plan = _plan_of(config, thresholds, held)
    graph = unroll(model, plan.buckets[0], Options(), plan)
    image = example_image(graph, 1)
    carried, examples = name_carried(graph, image)
    with tempfile.TemporaryDirectory(prefix="morvit-cost-") as scratch:
        folder = Path(scratch)
        graphs = {"stem.onnx": trace(StemPart(graph, plan, carried), [image], dynamic=False)[0]}
        for done, bucket in enumerate(plan.buckets):
            part = TrunkPart(graph.for_bucket(bucket), carried)
            graphs[f"{bucket.name}.onnx"] = trace(part, examples, dynamic=False)[0]
            progress((done + 1) / (len(held) + BLOCKS))
        write_graphs(folder, graphs)
        runners = [OnnxRunner(folder / name, folder, threads) for name in graphs]
        inputs = dict(zip(carried.values(), (example.numpy() for example in examples), strict=True))
        feeds: list[Arrays] = [{"image": np.zeros(image.shape, dtype=np.uint8)}, *[inputs] * len(held)]
        medians: list[list[float]] = [[] for _ in runners]
        for block in range(BLOCKS):
            for runner, feed, own in zip(runners, feeds, medians, strict=True):
                own.append(_block_ms(runner, feed))
            progress((len(held) + block + 1) / (len(held) + BLOCKS))
        for runner in runners:
            runner.close()
    stem_ms, *trunks_ms = map(median, medians)
    return MeasuredCost(tuple(held), tuple(trunks_ms), stem_ms)


def _plan_of(config: Config, thresholds: Thresholds | None, held: list[int]) -> Plan:
    """A ladder of equal capacities; not one to deploy: every step is routed, and `full` is one of the rungs."""
    steps = config.num_steps
    mode = {"expert_choice": "threshold", "token_choice": "depth"}[config.routing]
    buckets = [
        Bucket(name=FULL if number == held[-1] else f"b{i}", capacity=(number,) * steps, macs=1, upto=number)
        for i, number in enumerate(held)
    ]
    return Plan(
        format=FORMAT,
        mode=mode,  # type: ignore[arg-type]  # one of the two
        thresholds=(0.0,) * steps if mode == "threshold" else None,
        buckets=tuple(buckets),
    )


def _block_ms(runner: OnnxRunner, feed: Arrays) -> float:
    for _ in range(WARMUP):
        runner.run(feed)
    samples = []
    for _ in range(RUNS):
        started = time.perf_counter_ns()
        runner.run(feed)
        samples.append((time.perf_counter_ns() - started) / 1e6)
    return median(samples)
