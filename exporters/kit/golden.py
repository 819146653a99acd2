"""Images and what a model must return for them on a phone, for the Swift package's tests."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, synthetic_for
from morvit_deploy.exporters.functions.devices import TOLERANCE
from morvit_deploy.exporters.kit.write import Golden
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.model.trace import Routing
from morvit_deploy.verifying.comparison import exactly_normalised

CANDIDATES = 32  # images that goldens are chosen from
CLEAR = {"fp32": 1e-3, "fp16": 2e-2}  # routing margin that rounding does not cross

Answers = Callable[[Pixels], NDArray[np.float32]]  # logits, features or tokens of n images


def golden_of(model: MoRViT, manifest: Manifest, images: Pixels | None, written: Answers) -> Golden:
    """Output of the plan's model in float64, for images whose routing is clear; the clearest where none is.

    With compressed weights the file is another model than the checkpoint: the phone must repeat what is `written`.
    """
    config, plan = manifest.config, manifest.plan
    pixels = synthetic_for(config, CANDIDATES) if images is None else images[:CANDIDATES]
    reference = copy.deepcopy(model).double()
    own = plan.buckets[0].capacity if plan.mode == "topk" and config.capacity is not None else None
    with fitting_threads(config):
        images64 = exactly_normalised(pixels, config.preprocess)
        outcome = reference(images64, Routing(plan.thresholds, own), manifest.output)
    margins = np.array([trace.margin for trace in outcome.traces])
    clear = np.flatnonzero(margins >= CLEAR[manifest.precision])
    chosen = clear if len(clear) else np.argsort(-margins, kind="stable")[:1]
    returned = outcome.logits if outcome.vectors is None else outcome.vectors
    answers = returned.numpy()[chosen].astype(np.float32)
    if not manifest.target_form.exact:  # another model than the checkpoint
        answers = written(pixels[chosen])
    bucket = np.zeros(len(chosen), dtype=np.int32)
    if plan.adaptive:
        counts = np.array([outcome.traces[number].counts for number in chosen])
        bucket = plan.dispatched(counts)[0].astype(np.int32)
    return Golden(
        pixels=pixels[chosen],
        answers=answers.reshape(len(chosen), -1),
        bucket=bucket,
        tolerance=TOLERANCE[manifest.precision] * max(1.0, float(np.abs(answers).max())),
    )
