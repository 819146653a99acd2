"""Comparison of a bundle with its checkpoint, in chunks of images, bucket by bucket.

Three models run in float64 in PyTorch: the trained model, the plan's model (the trained model, or the same weights
routed by thresholds), and the static graph of each bucket. The target's runtime runs the bundle's files.

Routing gap: trained model to plan's model. Unrolling gap: plan's model to static graphs, which are equal in real
arithmetic. Conversion gap: static graphs to runtime. Every image is run in every bucket, so that every bucket is
tested; if the image needs more tokens than the bucket holds, all sides keep the highest router logits.

Below fp32 the conversion gap is only measured. All images are compared, whatever their routing margins, and the gate
of the precision requires a minimum agreement of router decisions and classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise, synthetic_for
from morvit_deploy.bundle.session import Session
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.style.styles import STYLES, Options
from morvit_deploy.model.config import Preprocess
from morvit_deploy.model.layers import double_of
from morvit_deploy.model.plan import is_own
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.model.trace import Routing
from morvit_deploy.verifying.buckets import BucketComparison
from morvit_deploy.verifying.dispatching import DispatchComparison
from morvit_deploy.verifying.findings import RoutingChange
from morvit_deploy.verifying.gaps import (
    EXACT_TOLERANCE,
    LOGIT_TOLERANCE,
    LogitPairs,
    is_clear,
    shares_of,
    worst_of,
)
from morvit_deploy.verifying.outcome import Verification

CHUNK = 4  # images per chunk: all of their states are kept
ENOUGH, SYNTHETIC = 3, 64  # number of synthetic images to compare, and the largest number to generate
ENOUGH_LOW = 32  # the same below fp32, where fractions of images are compared

OpenSession = Callable[..., Session]  # bucket: str | None, probes: bool


def compare(
    model: MoRViT,
    manifest: Manifest,
    open_session: OpenSession,
    images: Pixels | None,
    structure: dict[str, Any],
    *,
    tell: Callable[[str], None] = lambda stage: None,
    progress: Callable[[float], None] = lambda share: None,
) -> Verification:
    """Compare on images uint8 (n, height, width, channels); `open_session(bucket=…, probes=…)` opens the bundle.

    Without images, synthetic ones are generated until ENOUGH can be compared, at most SYNTHETIC: if every token
    chooses its depth, the smallest margin of an image is often too small. `tell` is called with each further stage,
    `progress` with the share of it that is done.
    """
    with ExitStack() as stack:
        comparison = _Comparison(model, manifest, lambda **which: stack.enter_context(open_session(**which)))
        total = SYNTHETIC if images is None else len(images)
        for start in range(0, total, CHUNK):
            if images is not None:
                comparison.add(images[start : start + CHUNK])
            elif comparison.least_compared < comparison.enough:
                comparison.add(synthetic_for(model.config, CHUNK, seed=start))
            progress(min(1.0, (start + CHUNK) / total if images is not None else comparison.share))
        if comparison.dispatch is not None:
            comparison.dispatch.add_edges(tell, progress)
        return comparison.verification(structure, synthetic=images is None)


class _Comparison:
    """The reference and the static graphs in float64, and the sessions of the bundle."""

    def __init__(self, model: MoRViT, manifest: Manifest, open_session: OpenSession) -> None:
        self.manifest, self.plan = manifest, manifest.plan
        self.low = not manifest.exact
        self.tolerance = math.inf if self.low else LOGIT_TOLERANCE
        self.reference = double_of(model)
        self.own = manifest.form != "unrolled" or is_own(manifest.plan, model.config)
        capacity = manifest.plan.buckets[0].capacity if manifest.plan.mode == "topk" else None
        has_schedule = model.config.capacity is not None
        self.routing = Routing(manifest.plan.thresholds, capacity if has_schedule else None)
        options = Options(input=manifest.input, style=STYLES["rows"], output=manifest.output)
        graphs = build_graphs(manifest.form, self.reference, manifest.plan, options)
        self.buckets = [
            BucketComparison(
                self.reference,
                graphs[bucket.name],
                bucket,
                open_session(bucket=bucket.name, probes=True),
                self.low,
                manifest.head,
            )
            for bucket in manifest.plan.buckets
        ]
        self.dispatch: DispatchComparison | None = None
        if manifest.plan.adaptive:
            whole, normalised = open_session(), self._normalised
            self.dispatch = DispatchComparison(manifest, whole, self.buckets, self.routing, normalised, model)
        self.change = RoutingChange.empty(model.config.num_steps)
        self.routed = LogitPairs(manifest.head)
        self.margins: list[float] = []
        self.clearances: list[float] = []

    def add(self, images: Pixels) -> None:
        """Run a chunk through all models and accumulate the differences."""
        exact, before = self._normalised(images), len(self.margins)
        with fitting_threads(self.reference.config):
            ragged = self.reference(exact, self.routing, self.manifest.output)
            self.margins += [trace.margin for trace in ragged.traces]
            self.clearances += [trace.clearance for trace in ragged.traces]
            if not self.own:
                trained = self.reference(exact, output=self.manifest.output)
                self.routed.add(trained.answer.numpy(), ragged.answer.numpy())
                self.change.add(trained, ragged)
            runs = [bucket.add(images, exact, ragged, self.routing, before) for bucket in self.buckets]
        if self.dispatch is not None:
            self.dispatch.add(images, ragged, runs)

    @property
    def enough(self) -> int:
        """How many synthetic images are compared."""
        gate = self.manifest.gate(None)
        return ENOUGH if gate is None else max(ENOUGH_LOW, gate.images_needed)

    @property
    def compared(self) -> int:
        """Number of images with a sufficient routing margin; below fp32, of all images."""
        return len(self.clearances) if self.low else int(is_clear(np.array(self.clearances)).sum())

    @property
    def share(self) -> float:
        """The share of the required synthetic images that has been compared."""
        return self.least_compared / self.enough

    @property
    def least_compared(self) -> int:
        """The smallest number of compared images of any bucket; margins depend on the capacity."""
        return min(self.compared, *(bucket.compared for bucket in self.buckets))

    def verification(self, structure: dict[str, Any], synthetic: bool) -> Verification:
        """Return the verification of all chunks."""
        unrolling = worst_of([bucket.unrolling.gap(EXACT_TOLERANCE) for bucket in self.buckets])
        conversions = [bucket.conversion.gap(self.tolerance) for bucket in self.buckets]
        decisions = [counts for bucket in self.buckets for counts in bucket.decisions]
        served = [0] * len(self.buckets) if self.dispatch is None else self.dispatch.served.tolist()
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
            clearances=self.clearances,
            buckets=[
                bucket.seen(images, gap.max_abs)
                for bucket, images, gap in zip(self.buckets, served, conversions, strict=True)
            ],
            dispatched=None if self.dispatch is None else self.dispatch.result(),
            edges=None if self.dispatch is None else self.dispatch.edges,
            precision=self.manifest.precision,
            gate=self.manifest.gate(None),
            fidelity=[bucket.fidelity() for bucket in self.buckets] if self.low else [],
            runtime=self.buckets[0].session.runner.runtime,
            judges_tokens=not self.reference.config.record.merges,
            warnings=self.buckets[0].session.warnings,
        )

    def _where(self, bucket: BucketComparison) -> str:
        where = f"bucket {bucket.bucket.name}, " if self.plan.adaptive else ""
        return f"{where}{bucket.divergence}"

    def _normalised(self, images: Pixels) -> torch.Tensor:
        """Return the reference's input, rounded to float32 only if the graph takes normalised floats."""
        preprocess = self.reference.config.preprocess
        if self.manifest.input == "float":
            return torch.from_numpy(normalise(images, preprocess)).double()
        return exactly_normalised(images, preprocess)


def exactly_normalised(images: Pixels, preprocess: Preprocess) -> torch.Tensor:
    """Normalise images uint8 (n, height, width, channels) in float64 to (n, 3, height, width)."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocess.mean, preprocess.std))
    return ((torch.from_numpy(images).double() / 255 - mean) / std).permute(0, 3, 1, 2)
