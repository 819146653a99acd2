"""The written files choose the plan's bucket, and a self-dispatching graph runs that bucket's trunk.

Checked for constructed token counts on both sides of every bound. Nothing is multiplied: buckets depend on the
routers' answers only, which are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.exporters.onnx.evaluation import EVALUATION_ERRORS, Evaluation
from morvit_deploy.exporters.onnx.graphs.names import graph_files
from morvit_deploy.exporters.onnx.graphs.plain import read_graph
from morvit_deploy.exporters.onnx.low.blocks import widened
from morvit_deploy.exporters.onnx.proof_values import batch_of, random_image
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.plan import Plan
from morvit_deploy.verifying.constructed import (
    ROUTER_LOGITS,
    Counts,
    answers,
    chosen_bucket,
    counts_at_bounds,
    exceeds,
)
from morvit_deploy.verifying.replay import SHOWN, Values


def dispatch_violations(folder: Path, manifest: Manifest, exact: Mapping[str, StaticMoRViT]) -> list[str]:
    """The first constructed counts for which another bucket is returned or run; `exact` is of `exact_copies`."""
    files = graph_files(manifest.dispatch, manifest.plan)
    model = widened(read_graph(folder / (files.get("stem") or files["model"]), weights=True)).model
    conditions = _conditions(model)
    names = [bucket.name for bucket in manifest.plan.buckets]
    if manifest.dispatch == "graph" and sorted(conditions) != sorted(names):
        return [f"the Ifs run {sorted(conditions)} where their condition is true, expected {sorted(names)}"]
    returned = [value.name for value in model.graph.output if value.name in ("bucket", "overflow")]
    routers = [name for name in manifest.probes if name.endswith(ROUTER_LOGITS)]
    evaluation = Evaluation(model, [*returned, *conditions.values()], routers)
    images = 1 if exact[names[0]].options.single else batch_of(manifest)
    image = random_image(exact[names[0]], images).numpy()
    every = counts_at_bounds(manifest.plan, manifest.config.num_patches)
    for counts in every:
        batch = [counts, *every[:1] * (images - 1)]
        wanted, given = _expected(manifest, batch, exact, conditions)
        try:
            found = evaluation.run({"image": image, **given})
        except EVALUATION_ERRORS as error:
            return [f"the choice of the bucket cannot be evaluated: {str(error)[:SHOWN]}"]
        for name in (name for name in wanted if name in found):
            if not np.array_equal(np.reshape(found[name], wanted[name].shape), wanted[name]):
                return [
                    f"{name!r} is {np.ravel(found[name]).tolist()} where {batch} tokens run the steps, expected "
                    f"{np.ravel(wanted[name]).tolist()}"
                ]
    return []


def _conditions(model: onnx.ModelProto) -> dict[str, str]:
    """Graph that runs where an If's condition is true, to that condition."""
    found = {}
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "then_branch":
                found[attribute.g.name] = node.input[0]
    return found


def _expected(
    manifest: Manifest, batch: list[Counts], exact: Mapping[str, StaticMoRViT], conditions: Mapping[str, str]
) -> tuple[Values, Values]:
    """What the file returns for these counts of tokens, and the router logits that make it count them."""
    plan, whole = manifest.plan, manifest.dispatch == "graph"
    needed = [chosen_bucket(plan, counts) for counts in batch]
    number = _together(plan, batch)
    chosen = plan.buckets[number]
    graph = exact[chosen.name]
    given = {
        name if name in manifest.probes else f"{chosen.name}/{name}": z[0] if graph.options.single else z
        for name, z in answers(graph, batch, np.float32).items()
    }
    if not whole:
        return {"bucket": np.array(needed)}, given
    overflow = np.array([exceeds(plan, number, counts) for counts in batch])
    ran = len(plan.buckets) - 1 if overflow.any() else number
    runs = {conditions[chosen.name], conditions[plan.buckets[ran].name]}
    decided = {name: np.array(name in runs) for name in conditions.values()}
    return {"bucket": np.full(len(batch), ran), "overflow": overflow, **decided}, given


def _together(plan: Plan, batch: list[Counts]) -> int:
    """The bucket that the images of a batch are sent to: with depths known, one that fits them all."""
    if plan.mode == "threshold":
        return max(chosen_bucket(plan, counts) for counts in batch)
    return chosen_bucket(plan, tuple(map(max, zip(*batch, strict=True))))
