"""Holds an opened bundle against its checkpoint, a few images at a time.

Routing gap: the dynamic reference against the static graph, both in float64 in PyTorch.
Conversion gap: the static graph in float64 against what the target's runtime answers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.baselines import build_form
from morvit_deploy.ends import Options
from morvit_deploy.model import MoRViT, Outcome
from morvit_deploy.pixels import Pixels, normalise, synthetic_images
from morvit_deploy.runtime import Arrays, Session
from morvit_deploy.threads import fitting_threads
from morvit_deploy.verdict import MARGIN, Gap, Verification
from morvit_deploy.walk import Walk

LOGIT_TOLERANCE = (
    1e-4  # × max(1, max |logit|): float32 round-off over 12 layers, and 20 times above what is seen
)
EXACT_TOLERANCE = (
    1e-9  # × the same: both sides of the routing gap are float64, only the order of sums differs
)
CHUNK = 4  # images at a time: the states of each are kept, so memory does not grow with their number
ENOUGH, SYNTHETIC = 3, 64  # synthetic images to be judged, and the most that are drawn for it


def compare(
    model: MoRViT,
    session: Session,
    images: Pixels | None,
    structure: dict[str, Any],
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Compare on `images` uint8 (n, height, width, 3); the session must have been opened with probes.

    Without images, on synthetic ones: as many as it takes to judge ENOUGH, at most SYNTHETIC. (token_choice
    decides for every token, so the least margin of an image is often too small to be judged.)
    """
    comparison = _Comparison(model, session)
    total = SYNTHETIC if images is None else len(images)
    for start in range(0, total, CHUNK):
        if images is not None:
            comparison.add(images[start : start + CHUNK])
        elif comparison.judged < ENOUGH:
            comparison.add(synthetic_images(CHUNK, model.config.image_size, seed=start))
        progress(min(1.0, (start + CHUNK) / total))
    return comparison.verification(structure, synthetic=images is None)


@dataclass
class _Seen:
    """What is kept of the images compared so far."""

    margins: list[NDArray] = field(default_factory=list)
    reference: list[NDArray] = field(default_factory=list)  # logits of each chunk
    static: list[NDArray] = field(default_factory=list)
    runtime: list[NDArray] = field(default_factory=list)
    decisions: list[NDArray[np.int64]] = field(default_factory=list)  # (steps, 2): alike, all
    divergence: str | None = None


class _Comparison:
    """The judge in float64, the static graph in float64, and the bundle."""

    def __init__(self, model: MoRViT, session: Session) -> None:
        manifest = session.manifest
        self.session, self.input = session, manifest.input
        self.judge = copy.deepcopy(model).double()
        bucket = manifest.plan.buckets[0]
        self.static = build_form(
            manifest.form, self.judge, bucket, Options(input=manifest.input, single=False)
        )
        self.walk = Walk(model.config, bucket.capacity)
        self.seen = _Seen()

    def add(self, images: Pixels) -> None:
        """Run one chunk through all three and keep what the verdict needs."""
        exact = self._normalised(images)
        with fitting_threads(self.judge.config):
            reference = self.judge(exact)
            answer = self.static(torch.from_numpy(images) if self.input == "uint8" else exact)
        static = {name: tensor.numpy() for name, tensor in answer.items()}
        runtime = self.session.run(images)
        seen = self.seen
        seen.divergence = seen.divergence or self._divergence(
            reference, static, runtime, _count(seen.margins)
        )
        seen.margins.append(np.array([trace.margin for trace in reference.traces]))
        seen.reference.append(reference.logits.numpy())
        seen.static.append(static["logits"])
        seen.runtime.append(runtime["logits"])
        decisions = self.walk.decisions_alike(reference, runtime, is_clear(seen.margins[-1]))
        if decisions is not None:
            seen.decisions.append(decisions)

    @property
    def judged(self) -> int:
        """Images so far whose routing margin lets them be judged."""
        return int(sum(is_clear(margins).sum() for margins in self.seen.margins))

    def verification(self, structure: dict[str, Any], synthetic: bool) -> Verification:
        """The verdict over all chunks."""
        seen = self.seen
        margins = np.concatenate(seen.margins)
        clear = is_clear(margins)
        reference, static, runtime = map(np.concatenate, (seen.reference, seen.static, seen.runtime))
        alike = np.sum(seen.decisions, axis=0) if seen.decisions else None
        return Verification(
            structure={"form": self.session.manifest.form, **structure},
            routing_gap=gap_of(reference[clear], static[clear], EXACT_TOLERANCE),
            conversion_gap=gap_of(static[clear], runtime[clear], LOGIT_TOLERANCE),
            router_agreement=None
            if alike is None
            else [same / of if of else 1.0 for same, of in alike.tolist()],
            images=len(margins),
            ambiguous=int((~clear).sum()),
            synthetic=synthetic,
            first_divergence=seen.divergence,
            margins=[float(margin) for margin in margins],
        )

    def _divergence(self, reference: Outcome, static: Arrays, runtime: Arrays, before: int) -> str | None:
        """Where a judged image of this chunk first leaves the reference, if its logits do."""
        clear = is_clear(np.array([trace.margin for trace in reference.traces]))
        logits = reference.logits.numpy()
        if not gap_of(logits[clear], static["logits"][clear], EXACT_TOLERANCE).passed:
            wanted, found = self.walk.stages_of_reference(reference), self.walk.stages_of(static)
        elif not gap_of(static["logits"][clear], runtime["logits"][clear], LOGIT_TOLERANCE).passed:
            wanted, found = self.walk.stages_of(static), self.walk.stages_of(runtime)
        else:
            return None
        return self.walk.first_divergence(wanted, found, clear, before)

    def _normalised(self, images: Pixels) -> torch.Tensor:
        """The judge's input: not rounded to float32 first, unless the graph takes normalised floats."""
        preprocess = self.judge.config.preprocess
        if self.input == "float":
            return torch.from_numpy(normalise(images, preprocess)).double()
        mean, std = (
            torch.tensor(values, dtype=torch.float64) for values in (preprocess.mean, preprocess.std)
        )
        return ((torch.from_numpy(images).double() / 255 - mean) / std).permute(0, 3, 1, 2)


def gap_of(expected: NDArray, actual: NDArray, tolerance: float) -> Gap:
    """How far logits (images, classes) are apart; `tolerance` is scaled by max(1, max |expected|)."""
    if not len(expected):
        return Gap(0.0, tolerance, 1.0)
    a, b = expected.astype(np.float64), actual.astype(np.float64)
    with np.errstate(invalid="ignore"):  # NaN is told of below, as an infinite difference
        difference = float(np.abs(a - b).max())
    same = float((a.argmax(axis=-1) == b.argmax(axis=-1)).mean())
    limit = tolerance * max(1.0, float(np.abs(a).max()))
    return Gap(difference if np.isfinite(difference) else float("inf"), limit, same)


def is_clear(margins: NDArray) -> NDArray[np.bool_]:
    """Images that are judged. NaN is: a model that answers NaN must fail, not be excused."""
    return ~(margins <= MARGIN)


def _count(parts: list[NDArray]) -> int:
    return sum(len(part) for part in parts)
