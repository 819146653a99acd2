"""From a chosen point to a plan. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from morvit_deploy.calibration.buckets.costs import expand
from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.calibration.routing.sequence import OWN, routed, scaled, target
from morvit_deploy.calibration.routing.statistics import Statistics
from morvit_deploy.model.config import Config
from morvit_deploy.model.plan import FULL, Bucket, Plan, bucket_macs, topk_plan


def draft_plan(config: Config, last: Statistics, chosen: Point, cost: str) -> Plan:
    """Return the plan of a point, from the joined statistics of the last round; `cost` is recorded in the plan."""
    record: dict[str, Any] = {
        "images": last.images,
        "unreadable": len(last.bad),
        "scale": chosen.scale,
        "cost": cost,
        "expected": chosen.expected,
        "expected_macs": chosen.expected_macs,
        "overflow": chosen.overflow,
        "top1": chosen.top1,
        "trained_top1": last.trained_top1,
        "top1_agreement": chosen.agreement,
    }
    if chosen.kind == "topk":
        scale = chosen.scale or OWN
        own = config.capacity if scale == OWN else None
        plan = topk_plan(config, own or scaled(config, scale))
        return plan.model_copy(update={"checkpoint": last.run.checkpoint, "calibration": record})
    assert last.counts is not None
    i = _number(last, chosen)
    record["keep_share"] = (last.counts[:, i].mean(axis=0) / config.num_patches).tolist()
    if chosen.kind == "threshold":
        alike = last.tallies["threshold.decisions"][i] / (last.images * config.num_patches)
        record["decision_agreement"] = alike.tolist()
    return Plan(
        format="morvit-plan/1",
        mode="threshold" if chosen.kind == "threshold" else "depth",
        thresholds=chosen.thresholds,
        buckets=_buckets(config, chosen),
        checkpoint=last.run.checkpoint,
        calibration=record,
    )


def _buckets(config: Config, chosen: Point) -> tuple[Bucket, ...]:
    ladder = chosen.ladder
    assert ladder is not None
    steps = routed(config) if chosen.kind == "threshold" else range(config.num_steps)
    schedules = expand(np.array(ladder.schedules), steps, config.num_steps, config.num_patches).tolist()
    bounds = ladder.upto or (None,) * len(schedules)
    names = [*(f"b{i}" for i in range(len(schedules) - 1)), FULL]
    return tuple(
        Bucket(
            name=name,
            capacity=tuple(schedule),
            macs=bucket_macs(config, tuple(schedule), chosen.thresholds),
            share=portion,
            upto=bound,
        )
        for name, schedule, portion, bound in zip(names, schedules, ladder.shares, bounds, strict=True)
    )


def remarks_on(config: Config, last: Statistics, chosen: Point) -> list[str]:
    """Return a remark for each threshold that should select some tokens but keeps every token, or none."""
    if chosen.kind != "threshold":
        return []
    assert last.counts is not None and chosen.thresholds is not None
    i = _number(last, chosen)
    ran = last.counts[:, i].sum(axis=0, dtype=int).tolist()
    totals = [last.images * config.num_patches, *ran]
    remarks = []
    for step in routed(config):
        before, after = totals[step], totals[step + 1]
        wanted = target(config, last.run.scales[i], step, last.images)
        if after in (0, before) and 0 < wanted < before:
            what = "keeps every token" if after else "keeps no token"
            why = "because the router's logits are nearly equal"
            if chosen.is_fitted and config.capacity:
                why = f"while it kept {config.capacity[step]} on average in training"
            remarks.append(
                f"step {step + 1}: the threshold {chosen.thresholds[step]:.4g} {what} on these images, {why} "
                "(`inspect --images` shows the depths)"
            )
    return remarks


def _number(last: Statistics, chosen: Point) -> int:
    """Return the index of the point's scale."""
    return 0 if chosen.scale is None else last.run.scales.index(chosen.scale)
