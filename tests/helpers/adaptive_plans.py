"""Plans of several buckets for tiny models, and what they say of images, in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import FORMAT, Bucket, Plan, bucket_macs, plan_problems

Counts = Sequence[int]  # patch tokens of one image that run each step


def threshold_plan(
    config: Config,
    thresholds: Sequence[float | None],
    ladder: Sequence[Sequence[int]],
    upto: Sequence[int] | None = None,
) -> Plan:
    """`ladder` and `full`; without `upto`, with made-up bounds for the dispatch table."""
    if upto is None:
        upto = np.linspace(1, config.num_patches - 1, len(ladder), dtype=int).tolist()
    return _checked(config, "threshold", tuple(thresholds), ladder, [*upto, config.num_patches])


def depth_plan(config: Config, ladder: Sequence[Sequence[int]]) -> Plan:
    """`ladder` and `full` for token_choice."""
    return _checked(config, "depth", None, ladder, [None] * (len(ladder) + 1))


def _checked(
    config: Config, mode: Any, taus: Any, ladder: Sequence[Sequence[int]], bounds: list[Any]
) -> Plan:
    schedules = [*(tuple(capacity) for capacity in ladder), (config.num_patches,) * config.num_steps]
    names = [*(f"b{i}" for i in range(len(ladder))), "full"]
    buckets = tuple(
        Bucket(name=name, capacity=capacity, macs=bucket_macs(config, capacity, taus), upto=upto)
        for name, capacity, upto in zip(names, schedules, bounds, strict=True)
    )
    plan = Plan(format=FORMAT, mode=mode, thresholds=taus, buckets=buckets)
    assert not plan_problems(plan, config)
    return plan


def fits(counts: Counts, bucket: Bucket) -> bool:
    """Does an image need no more than the bucket holds?"""
    return all(count <= held for count, held in zip(counts, bucket.capacity, strict=True))


def needed(plan: Plan, counts: Counts) -> int:
    """Number of the bucket that the stem calls for."""
    for number, bucket in enumerate(plan.buckets):
        if fits(counts, bucket) if plan.mode == "depth" else counts[plan.lead] <= (bucket.upto or 0):
            return number
    raise AssertionError("the last bucket serves everyone")


def answered_by(plan: Plan, group: Sequence[Counts]) -> tuple[list[int], list[bool]]:
    """Bucket and overflow of each image of a group that a self-dispatching graph takes together."""
    if plan.mode == "depth":  # the first bucket that fits all of them
        fitting = (all(fits(counts, bucket) for counts in group) for bucket in plan.buckets)
        return [next(number for number, fit in enumerate(fitting) if fit)] * len(group), [False] * len(group)
    chosen = max(needed(plan, counts) for counts in group)
    overflow = [not fits(counts, plan.buckets[chosen]) for counts in group]
    last = len(plan.buckets) - 1
    return [last if any(overflow) else chosen] * len(group), overflow
