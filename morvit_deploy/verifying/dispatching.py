"""Comparison of a bundle that chooses among several buckets: where it runs images, and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from morvit_deploy.agent.core.running import AT_A_TIME, Arrays
from morvit_deploy.bundle.manifest import Manifest
from morvit_deploy.bundle.pixels import Pixels, synthetic_for
from morvit_deploy.bundle.session import Session
from morvit_deploy.model.reference import MoRViT
from morvit_deploy.model.threads import fitting_threads
from morvit_deploy.model.trace import Outcome, Routing
from morvit_deploy.verifying.buckets import BucketComparison, Ran
from morvit_deploy.verifying.edges import Edge, Pool, edges_of
from morvit_deploy.verifying.findings import MARGIN, Dispatched, Edges
from morvit_deploy.verifying.gaps import LOGIT_TOLERANCE, LogitPairs, gap_of, is_clear, snr_db_of

POOL = 12  # synthetic pictures, and as many negatives, that a round of the search for pictures at the bounds adds
ROUNDS = 3  # at most, while a bound is not reached
TRIED = 120  # the largest number of pictures to count tokens of
SURE = 3  # × MARGIN: a clearance in float32 above which the picture is clear in float64, with the same counts
KEPT = 64  # the largest number of the compared images that the search may use
SEED = 1000  # of these pictures: none that were compared before
AT_EDGE, AT_EDGE_LOW = 1, 3  # pictures compared at each bound; below fp32 a single one may differ by chance
NEARER_DB = (
    10.0  # logits as dispatched that are so much nearer to another bucket's than to their own are the other's
)


class DispatchComparison:
    """Accumulates the differences between the plan's model and a bundle that chooses the bucket itself."""

    def __init__(
        self,
        manifest: Manifest,
        whole: Session,
        buckets: list[BucketComparison],
        routing: Routing,
        normalised: Callable[[Pixels], torch.Tensor],
        scout: MoRViT,
    ) -> None:
        self.plan, self.whole, self.buckets, self.routing = manifest.plan, whole, buckets, routing
        self.normalised, self.scout = normalised, scout  # the checkpoint's model in float32
        self.reference, self.low = buckets[0].reference, buckets[0].low
        self.tolerance = float("inf") if self.low else LOGIT_TOLERANCE
        self.group = 1  # images in a row that run in one bucket
        if manifest.dispatch == "graph":
            self.group = AT_A_TIME if manifest.batch == "dynamic" else manifest.batch
        self.output, self.head = manifest.output, manifest.head
        self.logits = LogitPairs(self.head)
        self.served = np.zeros(len(buckets), dtype=np.int64)
        self.overflowed = self.misdirected = self.misserved = 0
        self.pool = Pool(self._count, TRIED)
        self.pooled: list[Outcome | None] = []  # of the plan's model in float64, for pictures of the pool
        self.edges: Edges | None = None

    def add(self, images: Pixels, ragged: Outcome, runs: list[Ran]) -> None:
        """Run a chunk as a user does; `ragged` is the plan's model, `runs` the same images in each bucket."""
        outputs, clear = self.whole.run(images), _clear(ragged)
        if len(self.pool.pictures) < KEPT:
            self.pool.keep(images, _counts(ragged), clear)
            self.pooled += ragged.decided()
        clear = clear | self.low
        self.logits.add(ragged.answer.numpy()[clear], self._answer(outputs)[clear])
        self.served += np.bincount(outputs["bucket"], minlength=len(self.served))
        overflows = {number: ran.overflow for number, ran in enumerate(runs)}
        wrong, overflow = self._misdirected(outputs, clear, runs[0].wanted, overflows)
        self.overflowed += int(overflow.sum())
        self.misdirected += int(wrong.sum())
        if self.low:
            self.misserved += int(self._misserved(outputs, dict(enumerate(runs))).sum())

    def add_edges(
        self,
        tell: Callable[[str], None] = lambda stage: None,
        progress: Callable[[float], None] = lambda share: None,
    ) -> None:
        """Compare constructed pictures at the bounds of the buckets, and find buckets that no image ran in."""
        tell("constructing pictures at the bounds of the buckets")
        edges = edges_of(self.plan, self.reference.config.num_patches)
        most = AT_EDGE_LOW if self.low else AT_EDGE
        for seed in range(SEED, SEED + ROUNDS):
            pictures = synthetic_for(self.reference.config, POOL, seed=seed)
            self.pool.add(np.concatenate([pictures, 255 - pictures]))
            found = {}
            for edge in edges:
                found[edge] = self.pool.find(edge)[:most]
                progress(1 - max(self.pool.budget, 0) / max(TRIED, 1))
            if all(found.values()):
                break
        found = {edge: [one for one in at if self._is_at(one, edge)] for edge, at in found.items()}
        compared = dict.fromkeys((one, edge.bucket) for edge, at in found.items() for one in at)
        served, wrong = self.served > 0, []
        tell("comparing pictures at the bounds of the buckets")
        for number, (one, bucket) in enumerate(compared):
            progress(number / len(compared))
            ran_in, problem = self._at_edge(self.pool.pictures[one], self._outcome(one), bucket)
            served[ran_in] = True
            if problem:
                wrong.append(f"{problem} with {self.pool.counts[one].tolist()} tokens at the steps")
        unserved = tuple(
            bucket.bucket.name for bucket, once in zip(self.buckets, served, strict=True) if not once
        )
        reached = sum(bool(at) for at in found.values())
        example = wrong[0] if wrong else ""
        self.edges = Edges(len(edges), reached, len(compared), len(wrong), unserved, example)

    def result(self) -> Dispatched:
        """Return what was found, without the constructed pictures."""
        gap, compared = self.logits.gap(self.tolerance), sum(map(len, self.logits.expected))
        snr_db = self.logits.median_snr_db()
        return Dispatched(gap, self.overflowed, self.misdirected, compared, snr_db, self.misserved)

    def _misdirected(
        self,
        outputs: Arrays,
        clear: NDArray[np.bool_],
        wanted: NDArray[np.int64],
        overflows: dict[int, NDArray[np.bool_]],
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which compared images ran in another bucket than expected, and which should overflow."""
        predicted, too_small = self.plan.predicted(wanted), self.plan.too_small(wanted)
        for number, overflow in overflows.items():
            too_small[:, number] = overflow
        expected, overflow = self.plan.chosen(predicted, too_small, self.group)
        wrong = (outputs["bucket"] != expected) | (outputs.get("overflow", overflow) != overflow)
        places = np.arange(len(clear))  # a decision of one image can change the bucket of its group
        together = np.logical_and.reduceat(clear, places[:: self.group])[places // self.group]
        return wrong & together, overflow

    def _at_edge(self, picture: Pixels, ragged: Outcome, number: int) -> tuple[int, str]:
        """Return the bucket that a picture ran in, and what is wrong in the bucket `number` or as dispatched.

        `ragged` is the plan's model. In fp32 it also says which other buckets overflow; below, their own runs do.
        """
        images, name = picture[None], self.buckets[number].bucket.name
        exact = self.normalised(images)
        with fitting_threads(self.reference.config):
            ran = self.buckets[number].run(images, exact, ragged, self.routing)
            outputs = self.whole.run(images)
            served = int(outputs["bucket"][0])
            others = {int(self.plan.predicted(ran.wanted)[0]), served} - {number}
            runs, overflows = {number: ran}, {number: ran.overflow}
            for other in others:
                if self.low:
                    runs[other] = self.buckets[other].run(images, exact, ragged, self.routing)
                overflows[other] = runs[other].overflow if self.low else self.buckets[other].exceeded(ragged)
        if self._misdirected(outputs, np.array([True]), ran.wanted, overflows)[0].any():
            return served, f"ran in bucket {self.buckets[served].bucket.name}, not as the plan requires,"
        if self.low and self._misserved(outputs, runs).any():
            return served, f"has other logits than those of bucket {self.buckets[served].bucket.name}"
        if ran.wrong_overflow.any() or ran.wrong_depth.any():
            return served, f"overflow or depth of bucket {name} is wrong"
        alone = gap_of(ran.capped.answer.numpy(), ran.answer(self.output), self.tolerance, self.head)
        if not (ran.clear.all() and alone.passed):
            return served, f"logits of bucket {name} are wrong" if ran.clear.all() else ""
        if not gap_of(ragged.answer.numpy(), self._answer(outputs), self.tolerance, self.head).passed:
            return served, "logits as dispatched are wrong"
        return served, ""

    def _count(self, pictures: Pixels) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the tokens at each step of pictures (n, height, width, 3), and which are clear.

        Pictures are only searched for, so they are counted in float32, and in float64 where round-off could show.
        """
        counts, clear = [], []
        for picture in pictures:
            with fitting_threads(self.reference.config):
                ragged = self.scout(self.normalised(picture[None]).float(), self.routing)
            exact = None
            if not ragged.traces[0].clearance > SURE * MARGIN:
                ragged = exact = self._exactly(picture)
            self.pooled.append(exact)
            counts.append(_counts(ragged))
            clear.append(_clear(ragged))
        return np.concatenate(counts), np.concatenate(clear)

    def _exactly(self, picture: Pixels) -> Outcome:
        """Return what the plan's model says of a picture (height, width, 3) in float64."""
        with fitting_threads(self.reference.config):
            ragged: Outcome = self.reference(self.normalised(picture[None]), self.routing, self.output)
        return ragged.decided()[0]

    def _outcome(self, one: int) -> Outcome:
        """The same of a picture of the pool, where it is kept."""
        found = self.pooled[one]
        if found is None:
            found = self.pooled[one] = self._exactly(self.pool.pictures[one])
        return found

    def _is_at(self, one: int, edge: Edge) -> bool:
        """Whether a picture of the pool is clear and at an edge in float64, too."""
        ragged = self._outcome(one)
        return bool(edge.holds(_counts(ragged))[0] and _clear(ragged)[0])

    def _answer(self, outputs: Arrays) -> NDArray[Any]:
        """What the bundle returned, a row for each image: (images, numbers)."""
        return outputs[self.output].reshape(len(outputs["bucket"]), -1)

    def _misserved(self, outputs: Arrays, runs: dict[int, Ran]) -> NDArray[np.bool_]:
        """Return which images have, as dispatched, the logits of another bucket than the one that they ran in."""
        numbers = np.array(list(runs))
        answer = self._answer(outputs)
        alike = np.stack([snr_db_of(ran.answer(self.output), answer) for ran in runs.values()])
        is_own = numbers[:, None] == outputs["bucket"]  # (buckets, images)
        own = np.where(is_own, alike, -np.inf).max(axis=0)
        other = np.where(is_own, -np.inf, alike).max(axis=0)
        apart: NDArray[np.bool_] = (own < other - NEARER_DB) | (own == -np.inf)
        return apart


def _clear(ragged: Outcome) -> NDArray[np.bool_]:
    return is_clear(np.array([trace.clearance for trace in ragged.traces]))


def _counts(ragged: Outcome) -> NDArray[np.int64]:
    """Return the tokens that run each step, (images, steps)."""
    return np.array([trace.counts for trace in ragged.traces])
