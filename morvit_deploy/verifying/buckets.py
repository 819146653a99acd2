"""Comparison of one bucket: the plan's model limited to its capacity, the static graph, and the target's runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import Arrays
from morvit_deploy.bundle.pixels import Pixels
from morvit_deploy.bundle.session import Session
from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.choices import Output
from morvit_deploy.model.plan import Bucket
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.trace import Outcome, Routing
from morvit_deploy.verifying.findings import BucketSeen, Fidelity
from morvit_deploy.verifying.gaps import (
    EXACT_TOLERANCE,
    LOGIT_TOLERANCE,
    LogitPairs,
    flipped_margins,
    gap_of,
    is_clear,
    shares_of,
)
from morvit_deploy.verifying.merges import routes_of


@dataclass(frozen=True)
class Ran:
    """A chunk of images in one bucket: what the plan's model says, and what the runtime returned."""

    capped: Outcome
    runtime: Arrays
    clear: NDArray[np.bool_]  # (images,) those whose decisions round-off cannot change; below fp32 all
    overflow: NDArray[np.bool_]  # (images,) as expected
    depth: NDArray[np.int64]  # (images, patches) as expected
    wanted: NDArray[np.int64]  # (images, steps) tokens that would run each step

    def answer(self, output: Output) -> NDArray[Any]:
        """What the runtime returned, a row for each image: (images, numbers)."""
        return self.runtime[output].reshape(len(self.clear), -1)

    @property
    def wrong_overflow(self) -> NDArray[np.bool_]:
        """Which compared images have another overflow flag."""
        wrong: NDArray[np.bool_] = self.runtime.get("overflow", self.overflow) != self.overflow
        return wrong & self.clear

    @property
    def wrong_depth(self) -> NDArray[np.bool_]:
        """Which compared images have another depth of a token."""
        differs: NDArray[np.bool_] = (self.runtime.get("depth", self.depth) != self.depth).any(axis=1)
        return differs & self.clear


class BucketComparison:
    """Accumulates the differences between the plan's model, the static graph and the runtime of one bucket."""

    def __init__(
        self,
        reference: MoRViT,
        static: StaticMoRViT,
        bucket: Bucket,
        session: Session,
        low: bool,
        head: str,
    ) -> None:
        self.reference, self.static, self.bucket, self.session, self.low = (
            reference, static, bucket, session, low
        )  # fmt: skip
        self.decision_flips: list[list[float]] = [[] for _ in bucket.capacity]
        self.class_flips: list[float] = []
        self.tokens: list[NDArray[np.int64]] = []  # (steps, 2): equal, total
        self.output: Output = static.options.output
        self.routes = routes_of(reference.config, bucket.capacity, static.thresholds, self.output)
        self.head = head  # activation, or that nothing is decided
        self.unrolling, self.conversion = LogitPairs(self.head), LogitPairs(self.head)
        self.decisions: list[NDArray[np.int64]] = []  # (steps, 2): equal, total
        self.compared = self.fitting = self.wrong_overflow = self.wrong_depth = 0
        self.divergence: str | None = None

    def add(self, images: Pixels, exact: torch.Tensor, ragged: Outcome, routing: Routing, before: int) -> Ran:
        """Compare a chunk; `ragged` is the plan's model without a capacity, `exact` the reference's input."""
        ran = self.run(images, exact, ragged, routing)
        capped, runtime, clear = ran.capped, ran.runtime, ran.clear
        uint8 = self.static.options.input == "uint8"
        found = self.static(torch.from_numpy(images) if uint8 else exact)
        static = {name: tensor.numpy() for name, tensor in found.items()}
        computed, returned = static[self.output].reshape(len(images), -1), ran.answer(self.output)
        self.fitting += sum(self._fits(ragged))
        self.compared += int(clear.sum())
        self.divergence = self.divergence or self._divergence(capped, static, runtime, clear, before)
        self.unrolling.add(capped.answer.numpy()[clear], computed[clear])
        self.conversion.add(computed[clear], returned[clear])
        self.class_flips += flipped_margins(computed, returned, self.head)
        self.wrong_overflow += int(ran.wrong_overflow.sum())
        self.wrong_depth += int(ran.wrong_depth.sum())
        decisions = self.routes.decisions_alike(capped, runtime, clear, self.decision_flips)
        if decisions is not None:
            self.decisions.append(decisions)
        tokens = self.routes.tokens_alike(capped, runtime) if self.low else None
        if tokens is not None:
            self.tokens.append(tokens)
        return ran

    def run(self, images: Pixels, exact: torch.Tensor, ragged: Outcome, routing: Routing) -> Ran:
        """Run a chunk in the plan's model, limited to the bucket's capacity, and in the runtime.

        In fp32, overflow, depths and token counts are expected as the plan's model has them. Below fp32 they are
        expected as the runtime's own router decisions imply, which are compared with the model's by themselves.
        """
        own = routing.capacity is not None  # top-k routes by the capacity
        capped = ragged if own else self._capped(exact, ragged, routing)
        runtime = self.session.run(images)
        clear = is_clear(np.array([trace.clearance for trace in capped.traces])) | self.low
        overflow = np.array([trace.overflow for trace in capped.traces])
        depth: NDArray[np.int64] = capped.depth.numpy()
        wanted = np.array([trace.counts for trace in ragged.traces])
        if self.low:
            depths, counts = self.routes.depths(runtime), self.routes.wanted(runtime)
            depth = depth if depths is None else depths
            if counts is not None:
                wanted = counts
                overflow = np.any(counts > np.array(self.bucket.capacity), axis=1)
        return Ran(capped, runtime, clear, overflow, depth, wanted)

    def exceeded(self, ragged: Outcome) -> NDArray[np.bool_]:
        """Return which images (images,) overflow this bucket in the plan's model.

        Up to the first step that has too many tokens, a model with a capacity does what one without does.
        """
        return ~np.array(self._fits(ragged))

    def _capped(self, exact: torch.Tensor, ragged: Outcome, routing: Routing) -> Outcome:
        """Return the plan's model limited to the capacity; only images that exceed it are run again."""
        again = [image for image, fits in enumerate(self._fits(ragged)) if not fits]
        if not again:
            return ragged
        limited = self.reference(exact[again], Routing(routing.thresholds, self.bucket.capacity), self.output)
        return ragged.replaced(again, limited)

    def _fits(self, ragged: Outcome) -> list[bool]:
        return [_fits(trace.counts, self.bucket.capacity) for trace in ragged.traces]

    def _divergence(
        self, reference: Outcome, static: Arrays, runtime: Arrays, clear: NDArray[np.bool_], before: int
    ) -> str | None:
        """Return the first stage at which a compared image of this chunk differs, if its logits differ."""
        answer = reference.answer.numpy()
        computed, returned = (some[self.output].reshape(answer.shape) for some in (static, runtime))
        if not gap_of(answer[clear], computed[clear], EXACT_TOLERANCE, self.head).passed:
            wanted, found = self.routes.stages_of_reference(reference), self.routes.stages_of(static)
        elif self.low:
            return None
        elif not gap_of(computed[clear], returned[clear], LOGIT_TOLERANCE, self.head).passed:
            wanted, found = self.routes.stages_of(static), self.routes.stages_of(runtime)
        else:
            return None
        return self.routes.first_divergence(wanted, found, clear, before)

    def fidelity(self) -> Fidelity:
        """Return the fidelity of this bucket below fp32."""
        images = sum(map(len, self.conversion.expected))
        of = int(sum(counts[0, 1] for counts in self.tokens))
        return Fidelity(
            self.bucket.name,
            images,
            self.conversion.snr_db(),
            shares_of(self.tokens),
            self.class_flips,
            self.decision_flips,
            of,
            self.conversion.median_snr_db(),
        )

    def seen(self, served: int, max_abs: float) -> BucketSeen:
        """Return the bucket's row of the report; `served` images ran in it, `max_abs` is its conversion gap."""
        counted = self.fitting, self.compared, max_abs, self.wrong_overflow, self.wrong_depth
        return BucketSeen(self.bucket.name, served, *counted)


def _fits(counts: tuple[int, ...], capacity: tuple[int, ...]) -> bool:
    """Whether a bucket holds an image; a model without routers counts nothing, and its bucket holds every token."""
    return not counts or all(count <= held for count, held in zip(counts, capacity, strict=True))
