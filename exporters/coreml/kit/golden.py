"""Pictures with the answers that a Core ML package must give on a phone: for the Swift package's own tests."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, synthetic_images
from morvit_deploy.bundle.session import Session
from morvit_deploy.exporters.coreml.kit.write import Golden
from morvit_deploy.exporters.coreml.sdk.systems import TOLERANCE
from morvit_deploy.exporters.targets import open_runner
from morvit_deploy.model.reference import MoRViT, Routing
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.verifying.comparison import exactly_normalised

LOOKED_AT = 32  # pictures that goldens are chosen from
CLEAR = {"fp32": 1e-3, "fp16": 2e-2}  # routing margin: what rounding may not turn into another decision


def golden_of(model: MoRViT, manifest: Manifest, folder: Path, images: Pixels | None) -> Golden:
    """Answers of the plan's model in float64, for pictures whose routing is clear; the clearest where none is.

    With compressed weights the answers are the package's own: they are what the phone must repeat.
    """
    config, plan = manifest.config, manifest.plan
    pixels = synthetic_images(LOOKED_AT, config.image_size) if images is None else images[:LOOKED_AT]
    judge = copy.deepcopy(model).double()
    own = plan.buckets[0].capacity if plan.mode == "topk" and config.capacity is not None else None
    with fitting_threads(config):
        outcome = judge(exactly_normalised(pixels, config.preprocess), Routing(plan.thresholds, own))
    margins = np.array([trace.margin for trace in outcome.traces])
    clear = np.flatnonzero(margins >= CLEAR[manifest.precision])
    chosen = clear if len(clear) else np.argsort(-margins, kind="stable")[:1]
    logits = outcome.logits.numpy()[chosen].astype(np.float32)
    if not manifest.target_form.exact:  # another model than the checkpoint
        with Session(folder, manifest, open_runner(folder, manifest)) as session:
            logits = session.logits(pixels[chosen])
    bucket = np.zeros(len(chosen), dtype=np.int32)
    if plan.adaptive:
        counts = np.array([outcome.traces[number].counts for number in chosen])
        bucket = plan.dispatched(counts)[0].astype(np.int32)
    return Golden(
        pixels=pixels[chosen],
        logits=logits,
        bucket=bucket,
        tolerance=TOLERANCE[manifest.precision] * max(1.0, float(np.abs(logits).max())),
    )
