"""Constructed router logits that take a graph to the limits of its routing.

Real pictures seldom fill a capacity exactly or tie with a threshold, so a bound that is off by one would not show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from morvit_deploy.graph.unroll import StaticMoRViT
from morvit_deploy.model.plan import Plan

Logits = NDArray[np.float64]  # (tokens, channels) of one image, CLS first
Counts = tuple[int, ...]  # patch tokens that run each step

ROUTER_LOGITS = ".router_logits"  # suffix of a router's probe
DEPTHS = f"depth{ROUTER_LOGITS}"  # of the router that chooses depths


@dataclass(frozen=True)
class Script:
    """What the routers are made to decide: `counts` patch tokens at each step, or anything."""

    what: str
    counts: Counts | None = None
    decisions_only: bool = False  # the image overflows, and its logits are not returned


def scripts_of(graph: StaticMoRViT) -> list[Script]:
    """Scripts for one bucket: capacities filled exactly, half filled, and exceeded by one token at each step."""
    if graph.thresholds is None and not graph.config.record.depth_upfront:
        return [Script("distinct router logits")]
    capacity = graph.capacity
    half = tuple(count // 2 for count in capacity)
    found = [Script("capacities filled exactly", capacity), Script("capacities half filled", half)]
    for step, held in enumerate(capacity):
        before = capacity[step - 1] if step else graph.config.num_patches
        if before > held and _decides(graph, step):
            over = (*capacity[:step], held + 1, *capacity[step + 1 :])
            found.append(Script(f"one token more than step {step + 1} holds", over, decisions_only=True))
    return found


def _decides(graph: StaticMoRViT, step: int) -> bool:
    return graph.thresholds is None or graph.thresholds[step] is not None


def logits_name(step: int) -> str:
    """The probe of a step's router, counted from 0."""
    return f"step{step + 1}{ROUTER_LOGITS}"


class Router:
    """Answers for the routers of one image, step by step, as a script demands.

    At a step with a threshold, as many running tokens as the script counts reach it: one of them exactly, and one of
    the others misses it by the smallest difference of `kind`. Tokens that have left are on either side.
    """

    def __init__(
        self, graph: StaticMoRViT, script: Script, kind: type[np.floating[Any]], seed: int = 0
    ) -> None:
        self.capacity, self.thresholds, self.counts = graph.capacity, graph.thresholds, script.counts
        self.depths, self.kind = graph.config.record.depth_upfront, kind
        self.random = np.random.default_rng(seed)
        self.runs = np.ones(graph.config.num_patches, dtype=bool)  # in the order of the held tokens

    def logits(self, step: int, tokens: int, channels: int) -> Logits:
        """Router logits at a step (from 0); the steps are asked for in order."""
        z: Logits = self.random.normal(size=(tokens, channels))
        threshold = None if self.thresholds is None else self.thresholds[step]
        if self.counts is not None and self.depths:
            _set_depths(z, self.counts, self.random)
        elif self.counts is not None and threshold is not None:
            z[1:, 0] = self._around(float(self.kind(threshold)), self.counts[step], self.capacity[step])
        return z

    def _around(self, threshold: float, count: int, capacity: int) -> NDArray[np.float64]:
        """Router logits (held,) of the held patch tokens; notes which of them run the step."""
        running = self.random.permutation(np.flatnonzero(self.runs))
        going, staying = running[:count], running[count:]
        gaps = (0.1 + self.random.random(len(self.runs))) * max(1.0, abs(threshold))
        signs = self.random.choice([-1.0, 1.0], len(self.runs))
        signs[going], signs[staying] = 1.0, -1.0
        z: NDArray[np.float64] = threshold + signs * gaps
        z[going[:1]] = threshold
        below = float(np.nextafter(self.kind(threshold), self.kind(-np.inf)))
        z[staying[:1]] = below if np.isfinite(below) else z[staying[:1]]
        goes = np.isin(np.arange(len(self.runs)), going)
        if capacity < len(self.runs):
            order = np.argsort(-np.where(self.runs, z, -np.inf), kind="stable")[:capacity]
            goes = goes[order]
        self.runs = goes
        return z


def _set_depths(z: Logits, counts: Sequence[int], random: np.random.Generator) -> None:
    """Make depths the most likely of patch tokens in place, so that counts[s] tokens run layer s; some are ties."""
    patches = random.permutation(len(z) - 1) + 1
    for rank, token in enumerate(patches):
        depth = max(1, sum(count > rank for count in counts))
        best = z[token].max() + 1
        z[token, depth - 1] = best
        if rank % 2 and depth < z.shape[1]:
            z[token, depth] = best  # the lower depth wins a tie


def answers(graph: StaticMoRViT, batch: Sequence[Counts], kind: type[np.floating[Any]]) -> dict[str, Logits]:
    """Router logits (images, tokens, channels), by probe, that make these counts of tokens run a bucket's steps."""
    routers = [Router(graph, Script("", counts), kind, seed) for seed, counts in enumerate(batch)]
    config = graph.config
    if config.record.depth_upfront:
        layers = config.record.router_width(config)
        return {DEPTHS: np.stack([one.logits(0, 1 + config.num_patches, layers) for one in routers])}
    return {
        logits_name(step): np.stack([one.logits(step, 1 + len(one.runs), 1) for one in routers])
        for step, routed in enumerate(graph.routed)
        if routed
    }


def counts_at_bounds(plan: Plan, patches: int) -> list[Counts]:
    """Token counts on both sides of every bound that decides between buckets, and that make a bucket overflow."""
    found: dict[Counts, None] = {}
    for bucket in plan.buckets:
        if plan.mode == "depth":
            found[bucket.capacity] = None
            for step in range(1, len(bucket.capacity)):
                found[_one_more(bucket.capacity, step)] = None
            continue
        for lead in {0, bucket.upto or 0, min((bucket.upto or 0) + 1, patches)}:
            counts = [patches] * plan.lead + [lead] * (len(bucket.capacity) - plan.lead)
            held = plan.buckets[chosen_bucket(plan, tuple(counts))].capacity
            fitting = tuple(min(pair) for pair in zip(counts, held, strict=True))
            steps = (
                step for step, t in enumerate(plan.thresholds or ()) if t is not None and step > plan.lead
            )
            kept = (*counts[: plan.lead + 1], *fitting[plan.lead + 1 :])
            found[kept] = None
            for step in steps:
                if kept[step] == held[step] < kept[step - 1]:
                    found[_one_more(kept, step)] = None
    return list(found)


def chosen_bucket(plan: Plan, counts: Counts) -> int:
    """Number of the bucket that an image's token counts call for, before any overflow."""
    if plan.mode == "threshold":
        return next(n for n, bucket in enumerate(plan.buckets) if counts[plan.lead] <= (bucket.upto or 0))
    return next(n for n in range(len(plan.buckets)) if not exceeds(plan, n, counts))


def exceeds(plan: Plan, number: int, counts: Counts) -> bool:
    """Whether more tokens run a step than a bucket holds."""
    return any(count > held for count, held in zip(counts, plan.buckets[number].capacity, strict=True))


def _one_more(counts: Counts, step: int) -> Counts:
    return (*counts[:step], min(counts[step] + 1, counts[step - 1]), *counts[step + 1 :])
