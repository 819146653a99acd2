"""Likely causes of a difference from the source's own logits: what the numbers show, else what is often misread."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.model.config import Config
from morvit_deploy.sources.outputs.gap import FLOAT_TOLERANCE, HALF_TOLERANCE, SourceGap

Logits = NDArray[np.float64]
SUMS = 1e-3  # probabilities that were rounded to float16 sum to one within this


def likely_causes(theirs: Logits, own: Logits, gap: SourceGap, config: Config) -> tuple[str, ...]:
    """Return causes for logits (images, classes) that differ, the most likely first."""
    if not np.isfinite(own).all():
        return ("the checkpoint's own logits are not finite: its weights overflow",)
    return tuple(_shown(theirs, own, gap)) or tuple(_often(gap, config))


def _shown(theirs: Logits, own: Logits, gap: SourceGap) -> Iterator[str]:
    """Causes that the numbers show."""
    allowed = gap.tolerance
    sums = theirs.sum(axis=1)
    if theirs.min() >= 0 and theirs.max() <= 1 and np.abs(sums - 1).max() <= SUMS:
        yield "probabilities: each row of logits sums to 1; save the model's output before softmax"
    elif theirs.max() <= 0 and np.abs(np.exp(theirs).sum(axis=1) - 1).max() <= SUMS:
        yield "log-probabilities: save the model's output before log_softmax"
    elif np.abs(np.sort(theirs, axis=1) - np.sort(own, axis=1)).max() <= allowed:
        yield "order of classes: each image has the same logits in another order"
    elif len(own) > 1 and _has_each_row(theirs, own, allowed):
        yield "order of images: the logits are right, but of other images; save images and logits in one order"
    elif np.ptp(theirs - own, axis=0).max() <= allowed < np.ptp(own, axis=0).max():
        yield "bias of the head: the difference is the same for every image"
    elif gap.top1_agreement == 1 and _of_reduced_precision(gap):
        yield (
            "precision of the source: TF32, autocast and half precision make differences of this size; run your "
            "model in float32 on the CPU, or save logits in float16, which are judged more loosely"
        )
        yield "a setting with a small effect: activation (gelu or gelu_tanh), or norm_eps"


def _has_each_row(theirs: Logits, own: Logits, allowed: float) -> bool:
    """Whether each of the source's rows is the reference's row of some image."""
    return all(np.abs(own - row).max(axis=1).min() <= allowed for row in theirs)


def _of_reduced_precision(gap: SourceGap) -> bool:
    return gap.dtype != "float16" and gap.max_abs <= gap.tolerance * HALF_TOLERANCE / FLOAT_TOLERANCE


def _often(gap: SourceGap, config: Config) -> Iterator[str]:
    """What is often misread, with what was read here."""
    mean, std = (
        ", ".join(f"{value:.4g}" for value in values)
        for values in (config.preprocess.mean, config.preprocess.std)
    )
    yield "pooling: the head was read as taking the CLS token; the source may average the patch tokens"
    if gap.given == "images":
        read = _origin(config, "preprocess")
        yield f"normalization: mean ({mean}) and std ({std}) of RGB in [0, 1] were used{read}"
    else:
        yield "normalization: `inputs` are taken as they are; they must be what the model is given"
    yield f"activation: {config.activation} was used{_origin(config, 'activation')}"
    width = config.embed_dim // config.num_heads
    yield f"head width: {config.num_heads} heads of {width} were used{_origin(config, 'num_heads')}"
    yield "entry: the file may hold weights of another epoch, or averaged ones beside trained ones (--no-ema)"
    yield "the source: model.eval() was not called, or it reduces tokens without parameters (EViT, ToMe, A-ViT)"


def _origin(config: Config, name: str) -> str:
    """Where a setting was read, in parentheses; empty for a checkpoint that was not converted."""
    settled = (config.provenance or {}).get("settled")
    found = settled.get(name) if isinstance(settled, dict) else None
    return f" ({found['from']})" if isinstance(found, dict) and "from" in found else ""
