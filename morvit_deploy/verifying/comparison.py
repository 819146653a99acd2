"""Holds a bundle against its checkpoint, a few images at a time, bucket by bucket.

Three models answer in float64 in PyTorch: the checkpoint as it was trained, the plan's model (the same, or its
thresholds; each image ragged), and the static graph of each bucket. The target's runtime answers the bundle's files.

Routing gap: trained model against the plan's. Unrolling gap: plan's model against the static graphs, equal in real
arithmetic. Conversion gap: static graphs against the runtime. Every image is run in every bucket; where it needs more
than the bucket holds, all sides keep the highest router logits, so that no bucket goes untried.

Below fp32 the conversion gap is a measurement: every image is counted, however close its decisions, and what must be
kept are the routers' decisions and the classes, as far as the precision's gate asks.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, normalise, synthetic_images
from morvit_deploy.bundle.session import Arrays, Session
from morvit_deploy.graph.baselines import build_graphs
from morvit_deploy.graph.style.options import Options
from morvit_deploy.graph.style.styles import STYLES
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.config import Preprocess
from morvit_deploy.model.plan import Bucket, is_own
from morvit_deploy.model.reference import MoRViT, Outcome, Routing
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.verifying.outcome import (
    MARGIN,
    BucketSeen,
    Dispatched,
    Fidelity,
    Gap,
    RoutingChange,
    Verification,
)
from morvit_deploy.verifying.routes import Walk

LOGIT_TOLERANCE = (
    1e-4  # × max(1, max |logit|): float32 round-off over 12 layers, and 20 times above what is seen
)
EXACT_TOLERANCE = (
    1e-9  # × the same: both sides of the unrolling gap are float64, only the order of sums differs
)
CHUNK = 4  # images at a time: the states of each are kept, so memory does not grow with their number
ENOUGH, SYNTHETIC = 3, 64  # synthetic images to be judged, and the most that are drawn for it
ENOUGH_LOW = 32  # the same below fp32, where shares are judged and not each image

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

    Without images, on synthetic ones: as many as it takes to judge ENOUGH, at most SYNTHETIC. (token_choice
    decides for every token, so the least margin of an image is often too small to be judged.)
    """
    with ExitStack() as stack:
        comparison = _Comparison(model, manifest, lambda **which: stack.enter_context(open_session(**which)))
        total = SYNTHETIC if images is None else len(images)
        for start in range(0, total, CHUNK):
            if images is not None:
                comparison.add(images[start : start + CHUNK])
            elif comparison.least_judged < (ENOUGH_LOW if comparison.low else ENOUGH):
                comparison.add(synthetic_images(CHUNK, model.config.image_size, seed=start))
            progress(min(1.0, (start + CHUNK) / total))
        return comparison.verification(structure, synthetic=images is None)


@dataclass
class Answers:
    """Two sides' logits of the judged images, a chunk after the other."""

    expected: list[NDArray] = field(default_factory=list)
    actual: list[NDArray] = field(default_factory=list)

    def add(self, expected: NDArray, actual: NDArray) -> None:
        """Logits (images, classes) of both sides."""
        self.expected.append(expected)
        self.actual.append(actual)

    def energies(self) -> tuple[float, float]:
        """Sums of squares of what was expected and of the error; an infinite error where an answer is not finite."""
        signal = sum(float(np.square(part.astype(np.float64)).sum()) for part in self.expected)
        pairs = zip(self.expected, self.actual, strict=True)
        noise = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in pairs)
        return signal, noise if math.isfinite(noise) else math.inf

    def gap(self, tolerance: float) -> Gap:
        """How far the two sides are apart."""
        if not self.expected:
            return Gap(0.0, tolerance, 1.0)
        return gap_of(np.concatenate(self.expected), np.concatenate(self.actual), tolerance)


class _InBucket:
    """One bucket: the plan's model held to its capacity, the static graph, and the runtime."""

    def __init__(
        self, judge: MoRViT, static: StaticMoRViT, bucket: Bucket, session: Session, low: bool
    ) -> None:
        self.judge, self.static, self.bucket, self.session, self.low = judge, static, bucket, session, low
        self.decision_flips: list[list[float]] = [[] for _ in bucket.capacity]
        self.class_flips: list[float] = []
        self.tokens: list[NDArray[np.int64]] = []  # (steps, 2): alike, all
        self.walk = Walk(judge.config, bucket.capacity, static.thresholds)
        self.unrolling, self.conversion = Answers(), Answers()
        self.decisions: list[NDArray[np.int64]] = []  # (steps, 2): alike, all
        self.judged = self.fitting = self.wrong_overflow = self.wrong_depth = 0
        self.divergence: str | None = None

    def add(
        self, images: Pixels, exact: torch.Tensor, ragged: Outcome, routing: Routing, before: int
    ) -> None:
        """Compare one chunk; `ragged` is the plan's model without a capacity, `exact` the judge's input."""
        fits = [_fits(trace.counts, self.bucket.capacity) for trace in ragged.traces]
        own = routing.capacity is not None  # top-k: the capacity is the routing
        capped = ragged
        if not (own or all(fits)):
            capped = self.judge(exact, Routing(routing.thresholds, self.bucket.capacity))
        uint8 = self.static.options.input == "uint8"
        answer = self.static(torch.from_numpy(images) if uint8 else exact)
        static = {name: tensor.numpy() for name, tensor in answer.items()}
        runtime = self.session.run(images)
        clear = is_clear(np.array([trace.margin for trace in capped.traces])) | self.low
        self.fitting += sum(fits)
        self.judged += int(clear.sum())
        self.divergence = self.divergence or self._divergence(capped, static, runtime, clear, before)
        self.unrolling.add(capped.logits.numpy()[clear], static["logits"][clear])
        self.conversion.add(static["logits"][clear], runtime["logits"][clear])
        self.class_flips += flipped_margins(static["logits"], runtime["logits"])
        if "overflow" in runtime:
            overflow = np.array([trace.overflow for trace in capped.traces])
            self.wrong_overflow += int((overflow != runtime["overflow"])[clear].sum())
        if "depth" in runtime:
            differs = (capped.depth.numpy() != runtime["depth"]).any(axis=1)
            self.wrong_depth += int(differs[clear].sum())
        decisions = self.walk.decisions_alike(capped, runtime, clear, self.decision_flips)
        if decisions is not None:
            self.decisions.append(decisions)
        tokens = self.walk.tokens_alike(capped, runtime) if self.low else None
        if tokens is not None:
            self.tokens.append(tokens)

    def _divergence(
        self, reference: Outcome, static: Arrays, runtime: Arrays, clear: NDArray[np.bool_], before: int
    ) -> str | None:
        """Where a judged image of this chunk first leaves the reference, if its logits do."""
        logits = reference.logits.numpy()
        if not gap_of(logits[clear], static["logits"][clear], EXACT_TOLERANCE).passed:
            wanted, found = self.walk.stages_of_reference(reference), self.walk.stages_of(static)
        elif self.low:
            return None
        elif not gap_of(static["logits"][clear], runtime["logits"][clear], LOGIT_TOLERANCE).passed:
            wanted, found = self.walk.stages_of(static), self.walk.stages_of(runtime)
        else:
            return None
        return self.walk.first_divergence(wanted, found, clear, before)

    def fidelity(self) -> Fidelity:
        """What this bucket keeps, below fp32."""
        signal, noise = self.conversion.energies()
        snr = math.inf if signal else -math.inf
        if noise:
            snr = 10 * math.log10(signal / noise) if signal and noise < math.inf else -math.inf
        images = sum(map(len, self.conversion.expected))
        alike = _shares(self.tokens)
        return Fidelity(self.bucket.name, images, snr, alike, self.class_flips, self.decision_flips)


class _Comparison:
    """The judge in float64, the static graphs in float64, and the bundle."""

    def __init__(self, model: MoRViT, manifest: Manifest, open_session: OpenSession) -> None:
        self.manifest, self.plan = manifest, manifest.plan
        self.low = not manifest.exact
        self.tolerance = math.inf if self.low else LOGIT_TOLERANCE
        self.judge = copy.deepcopy(model).double()
        self.own = manifest.form != "unrolled" or is_own(manifest.plan, model.config)
        capacity = manifest.plan.buckets[0].capacity if manifest.plan.mode == "topk" else None
        has_schedule = model.config.capacity is not None
        self.routing = Routing(manifest.plan.thresholds, capacity if has_schedule else None)
        options = Options(input=manifest.input, style=STYLES["rows"])
        graphs = build_graphs(manifest.form, self.judge, manifest.plan, options)
        self.buckets = [
            _InBucket(
                self.judge,
                graphs[bucket.name],
                bucket,
                open_session(bucket=bucket.name, probes=True),
                self.low,
            )
            for bucket in manifest.plan.buckets
        ]
        self.whole = open_session() if manifest.plan.adaptive else None
        self.change = RoutingChange.empty(model.config.num_steps)
        self.routed, self.dispatched = Answers(), Answers()
        self.served = np.zeros(len(self.buckets), dtype=np.int64)
        self.overflowed = self.misdirected = 0
        self.margins: list[float] = []

    def add(self, images: Pixels) -> None:
        """Run one chunk through all models and keep what the verdict needs."""
        exact, before = self._normalised(images), len(self.margins)
        with fitting_threads(self.judge.config):
            ragged = self.judge(exact, self.routing)
            self.margins += [trace.margin for trace in ragged.traces]
            if not self.own:
                trained = self.judge(exact)
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
    def judged(self) -> int:
        """Images so far whose routing margin lets them be judged; below fp32 every one is."""
        return len(self.margins) if self.low else int(is_clear(np.array(self.margins)).sum())

    @property
    def least_judged(self) -> int:
        """The same in the bucket that fewest could be judged in: a bucket that holds less has margins of its own."""
        return min(self.judged, *(bucket.judged for bucket in self.buckets))

    def verification(self, structure: dict[str, Any], synthetic: bool) -> Verification:
        """The verdict over all chunks."""
        unrolling = _worst([bucket.unrolling.gap(EXACT_TOLERANCE) for bucket in self.buckets])
        conversions = [bucket.conversion.gap(self.tolerance) for bucket in self.buckets]
        decisions = [counts for bucket in self.buckets for counts in bucket.decisions]
        diverging = [bucket for bucket in self.buckets if bucket.divergence]
        return Verification(
            structure={"form": self.manifest.form, **structure},
            routing_gap=unrolling if self.own else self.routed.gap(float("inf")),
            unrolling_gap=None if self.own else unrolling,
            conversion_gap=_worst(conversions),
            routing_change=None if self.own else self.change,
            router_agreement=_shares(decisions) if decisions else None,
            images=len(self.margins),
            ambiguous=len(self.margins) - self.judged,
            synthetic=synthetic,
            first_divergence=self._told(diverging[0]) if diverging else None,
            margins=self.margins,
            buckets=[
                BucketSeen(
                    bucket.bucket.name,
                    int(served),
                    bucket.fitting,
                    bucket.judged,
                    gap.max_abs,
                    bucket.wrong_overflow,
                    bucket.wrong_depth,
                )
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
        )

    def _told(self, bucket: _InBucket) -> str:
        where = f"bucket {bucket.bucket.name}, " if self.plan.adaptive else ""
        return f"{where}{bucket.divergence}"

    def _normalised(self, images: Pixels) -> torch.Tensor:
        """The judge's input: not rounded to float32 first, unless the graph takes normalised floats."""
        preprocess = self.judge.config.preprocess
        if self.manifest.input == "float":
            return torch.from_numpy(normalise(images, preprocess)).double()
        return exactly_normalised(images, preprocess)


def exactly_normalised(images: Pixels, preprocess: Preprocess) -> torch.Tensor:
    """uint8 (n, height, width, 3) as the reference takes them, float64 (n, 3, height, width)."""
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (preprocess.mean, preprocess.std))
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


def flipped_margins(expected: NDArray, actual: NDArray) -> list[float]:
    """Of images whose class differs between logits (images, classes): how far the expected two best are apart."""
    best = np.sort(expected, axis=-1)[:, -2:]
    flips = expected.argmax(axis=-1) != actual.argmax(axis=-1)
    return (best[:, -1] - best[:, 0])[flips].tolist()


def is_clear(margins: NDArray) -> NDArray[np.bool_]:
    """Images that are judged. NaN is: a model that answers NaN must fail, not be excused."""
    return ~(margins <= MARGIN)


def _fits(counts: tuple[int, ...], capacity: tuple[int, ...]) -> bool:
    return all(count <= held for count, held in zip(counts, capacity, strict=False))


def _shares(counts: list[NDArray[np.int64]]) -> list[float]:
    """Of each step, from counts (steps, 2) of those alike and of all; empty without any."""
    if not counts:
        return []
    return [same / of if of else 1.0 for same, of in np.sum(counts, axis=0).tolist()]


def _worst(gaps: list[Gap]) -> Gap:
    """The widest of several gaps, in terms of what is allowed."""
    lowest = min(gap.top1_agreement for gap in gaps)
    widest = max(
        gaps, key=lambda gap: (gap.max_abs / gap.tolerance, gap.max_abs)
    )  # without tolerance, the second
    return Gap(widest.max_abs, widest.tolerance, lowest)
