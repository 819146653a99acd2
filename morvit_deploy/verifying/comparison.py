"""Compares a bundle with its checkpoint, a few images at a time, bucket by bucket.

Three models run in float64 in PyTorch: the checkpoint as it was trained, the plan's model (the same, or its
thresholds; each image ragged), and the static graph of each bucket. The target's runtime runs the bundle's files.

Routing gap: trained model against the plan's. Unrolling gap: plan's model against the static graphs, equal in real
arithmetic. Conversion gap: static graphs against the runtime. Every image is run in every bucket; where it needs more
than the bucket holds, all sides keep the highest router logits, so that no bucket goes untried.

Below fp32 the conversion gap is a measurement: every image is counted, however close its decisions, and what must be
kept are the routers' decisions and the classes, as far as the precision's gate requires.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise, synthetic_images
from morvit_deploy.bundle.session import Session
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.model.config import Preprocess
from morvit_deploy.model.plan import is_own
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.model.trace import Outcome, Routing
from morvit_deploy.verifying.buckets import BucketComparison
from morvit_deploy.verifying.findings import Dispatched, RoutingChange
from morvit_deploy.verifying.gaps import (
    EXACT_TOLERANCE,
    LOGIT_TOLERANCE,
    LogitPairs,
    is_clear,
    shares_of,
    worst_of,
)
from morvit_deploy.verifying.outcome import Verification

CHUNK = 4  # images at a time: the states of each are kept, so memory does not grow with their number
ENOUGH, SYNTHETIC = 3, 64  # synthetic images to be compared, and the most that are drawn for it
ENOUGH_LOW = 32  # the same below fp32, where shares count and not each image

OpenSession = Callable[..., Session]  # bucket: str | None, probes: bool


def compare(
    model: MoRViT,
    manifest: Manifest,
    open_session: OpenSession,
    images: Pixels | None,
    structure: dict[str, Any],
    *,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Compare on `images` uint8 (n, height, width, 3); `open_session(bucket=…, probes=…)` opens the bundle.

    Without images, on synthetic ones: as many as it takes to compare ENOUGH, at most SYNTHETIC. (Where every
    token chooses its depth, the least margin of an image is often too small.)
    """
    with ExitStack() as stack:
        comparison = _Comparison(model, manifest, lambda **which: stack.enter_context(open_session(**which)))
        total = SYNTHETIC if images is None else len(images)
        for start in range(0, total, CHUNK):
            if images is not None:
                comparison.add(images[start : start + CHUNK])
            elif comparison.least_compared < (ENOUGH_LOW if comparison.low else ENOUGH):
                comparison.add(synthetic_images(CHUNK, model.config.image_size, seed=start))
            progress(min(1.0, (start + CHUNK) / total))
        return comparison.verification(structure, synthetic=images is None)


class _Comparison:
    """The reference in float64, the static graphs in float64, and the bundle."""

    def __init__(self, model: MoRViT, manifest: Manifest, open_session: OpenSession) -> None:
        self.manifest, self.plan = manifest, manifest.plan
        self.low = not manifest.exact
        self.tolerance = math.inf if self.low else LOGIT_TOLERANCE
        self.reference = copy.deepcopy(model).double()
        self.own = manifest.form != "unrolled" or is_own(manifest.plan, model.config)
        capacity = manifest.plan.buckets[0].capacity if manifest.plan.mode == "topk" else None
        has_schedule = model.config.capacity is not None
        self.routing = Routing(manifest.plan.thresholds, capacity if has_schedule else None)
        options = Options(input=manifest.input, style=STYLES["rows"])
        graphs = build_graphs(manifest.form, self.reference, manifest.plan, options)
        self.buckets = [
            BucketComparison(
                self.reference,
                graphs[bucket.name],
                bucket,
                open_session(bucket=bucket.name, probes=True),
                self.low,
            )
            for bucket in manifest.plan.buckets
        ]
        self.whole = open_session() if manifest.plan.adaptive else None
        self.change = RoutingChange.empty(model.config.num_steps)
        self.routed, self.dispatched = LogitPairs(), LogitPairs()
        self.served = np.zeros(len(self.buckets), dtype=np.int64)
        self.overflowed = self.misdirected = 0
        self.margins: list[float] = []

    def add(self, images: Pixels) -> None:
        """Run one chunk through all models and keep what the verification needs."""
        exact, before = self._normalised(images), len(self.margins)
        with fitting_threads(self.reference.config):
            ragged = self.reference(exact, self.routing)
            self.margins += [trace.margin for trace in ragged.traces]
            if not self.own:
                trained = self.reference(exact)
                self.routed.add(trained.logits.numpy(), ragged.logits.numpy())
                self.change.add(trained, ragged)
            for bucket in self.buckets:
                bucket.add(images, exact, ragged, self.routing, before)
        if self.whole is not None:
            self._add_dispatched(images, ragged, self.whole)

    def _add_dispatched(self, images: Pixels, ragged: Outcome, whole: Session) -> None:
        """The bundle as a user runs it: it chooses the bucket."""
        answer = whole.run(images)
        clear = is_clear(np.array([trace.margin for trace in ragged.traces])) | self.low
        self.dispatched.add(ragged.logits.numpy()[clear], answer["logits"][clear])
        self.served += np.bincount(answer["bucket"], minlength=len(self.served))
        counts = np.array([trace.counts for trace in ragged.traces])
        expected, overflow = self.plan.dispatched(counts)
        self.overflowed += int(overflow.sum())
        if self.manifest.batch == 1 or self.manifest.dispatch == "host":
            wrong = (answer["bucket"] != expected) | (answer.get("overflow", overflow) != overflow)
            self.misdirected += int(wrong[clear].sum())

    @property
    def compared(self) -> int:
        """Images so far whose routing is clear enough to be compared; below fp32 all are."""
        return len(self.margins) if self.low else int(is_clear(np.array(self.margins)).sum())

    @property
    def least_compared(self) -> int:
        """The same in the bucket with the fewest: one that holds less has margins of its own."""
        return min(self.compared, *(bucket.compared for bucket in self.buckets))

    def verification(self, structure: dict[str, Any], synthetic: bool) -> Verification:
        """The verification over all chunks."""
        unrolling = worst_of([bucket.unrolling.gap(EXACT_TOLERANCE) for bucket in self.buckets])
        conversions = [bucket.conversion.gap(self.tolerance) for bucket in self.buckets]
        decisions = [counts for bucket in self.buckets for counts in bucket.decisions]
        diverging = [bucket for bucket in self.buckets if bucket.divergence]
        return Verification(
            structure={"form": self.manifest.form, **structure},
            routing_gap=unrolling if self.own else self.routed.gap(float("inf")),
            unrolling_gap=None if self.own else unrolling,
            conversion_gap=worst_of(conversions),
            routing_change=None if self.own else self.change,
            router_agreement=shares_of(decisions) if decisions else None,
            images=len(self.margins),
            ambiguous=len(self.margins) - self.compared,
            synthetic=synthetic,
            first_divergence=self._where(diverging[0]) if diverging else None,
            margins=self.margins,
            buckets=[
                bucket.seen(int(served), gap.max_abs)
                for bucket, served, gap in zip(self.buckets, self.served, conversions, strict=True)
            ]
            if self.plan.mode != "topk" and self.manifest.form == "unrolled"
            else [],
            dispatched=None
            if self.whole is None
            else Dispatched(self.dispatched.gap(self.tolerance), self.overflowed, self.misdirected),
            precision=self.manifest.precision,
            gate=self.manifest.gate(None),
            fidelity=[bucket.fidelity() for bucket in self.buckets] if self.low else [],
            runtime=self.buckets[0].session.runner.runtime,
            warnings=self.buckets[0].session.warnings,
        )

    def _where(self, bucket: BucketComparison) -> str:
        where = f"bucket {bucket.bucket.name}, " if self.plan.adaptive else ""
        return f"{where}{bucket.divergence}"

    def _normalised(self, images: Pixels) -> torch.Tensor:
        """The reference's input: not rounded to float32 first, unless the graph takes normalised floats."""
        preprocess = self.reference.config.preprocess
        if self.manifest.input == "float":
            return torch.from_numpy(normalise(images, preprocess)).double()
        return exactly_normalised(images, preprocess)


def exactly_normalised(images: Pixels, preprocess: Preprocess) -> torch.Tensor:
    """uint8 (n, height, width, 3) as the reference takes them, float64 (n, 3, height, width)."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocess.mean, preprocess.std))
    return ((torch.from_numpy(images).double() / 255 - mean) / std).permute(0, 3, 1, 2)
