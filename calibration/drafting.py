"""From a chosen point to a plan file, with what was learned about it. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from morvit_deploy.calibration.costs import expand
from morvit_deploy.calibration.points import Point, top1
from morvit_deploy.calibration.sequence import OWN, routed, scaled
from morvit_deploy.calibration.statistics import Statistics
from morvit_deploy.config import Config
from morvit_deploy.plan import FORMAT, FULL, Bucket, Plan, bucket_macs, own_plan, topk_plan


def draft_plan(config: Config, last: Statistics, chosen: Point, cost: str) -> Plan:
    """The plan of a point, from the last round's joined statistics; `cost` is what its buckets were fitted to."""
    run = last.run
    i = run.scales.index(chosen.scale or OWN)
    facts: dict[str, Any] = {
        "images": len(last.records["label"]),
        "unreadable": len(last.bad),
        "scale": chosen.scale,
        "cost": cost,
        "expected": chosen.expected,
        "expected_macs": chosen.expected_macs,
        "overflow": chosen.overflow,
        "top1": chosen.top1,
        "trained_top1": top1(last.records, last.records["trained"]),
        "top1_agreement": chosen.agreement,
    }
    if chosen.kind == "topk":
        plan = (
            own_plan(config)
            if chosen.scale == OWN
            else topk_plan(config, scaled(config, chosen.scale or OWN))
        )
        return plan.model_copy(update={"checkpoint": run.checkpoint, "calibration": facts})
    counts = last.records["counts"][:, i]
    facts["keep_share"] = (counts.mean(axis=0) / config.num_patches).tolist()
    if last.alike is not None and chosen.kind == "threshold":
        facts["decision_agreement"] = (last.alike[i] / (len(counts) * config.num_patches)).tolist()
    return Plan(
        format=FORMAT,
        mode="threshold" if chosen.kind == "threshold" else "depth",
        thresholds=chosen.thresholds,
        buckets=_buckets(config, chosen),
        checkpoint=run.checkpoint,
        calibration=facts,
    )


def _buckets(config: Config, chosen: Point) -> tuple[Bucket, ...]:
    ladder = chosen.ladder
    assert ladder is not None
    steps = routed(config) if chosen.kind == "threshold" else range(config.num_steps)
    schedules = expand(np.array(ladder.schedules), list(steps), config.num_steps, config.num_patches)
    bounds = ladder.upto or (None,) * len(schedules)
    names = [*(f"b{i}" for i in range(len(schedules) - 1)), FULL]
    return tuple(
        Bucket(
            name=name,
            capacity=tuple(map(int, schedule)),
            macs=bucket_macs(config, tuple(map(int, schedule)), chosen.thresholds),
            share=portion,
            upto=None if bound is None else int(bound),
        )
        for name, schedule, portion, bound in zip(names, schedules, ladder.shares, bounds, strict=True)
    )


def remarks_on(config: Config, last: Statistics, chosen: Point) -> list[str]:
    """Thresholds that decide nothing: they keep every token, or none."""
    if chosen.kind != "threshold":
        return []
    i = last.run.scales.index(chosen.scale or OWN)
    totals = [
        len(last.records["label"]) * config.num_patches,
        *last.records["counts"][:, i].sum(axis=0, dtype=int),
    ]
    remarks = []
    for step in routed(config):
        before, after = int(totals[step]), int(totals[step + 1])
        if before and after in (0, before):
            what = "keeps every token" if after else "keeps no token"
            remarks.append(
                f"step {step + 1}: the threshold {(chosen.thresholds or ())[step]:.4g} {what} on these images, so "
                "it decides nothing: the router's logits hardly differ (`inspect --images` shows the depths)"
            )
    return remarks
