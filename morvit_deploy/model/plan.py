"""A plan: routing mode, thresholds, and buckets in ascending order of cost (`morvit-plan/1`). No torch."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from morvit_deploy.errors import PlanError, listed
from morvit_deploy.model.config import Config, Threshold
from morvit_deploy.model.macs import schedule_macs
from morvit_deploy.model.routings.record import Mode
from morvit_deploy.model.routings.schedules import (
    routed_by,
    schedule_problems,
    threshold_problems,
    unthresholded_problems,
)
from morvit_deploy.report import count, numbered
from morvit_deploy.strict_fields import Count, Strict, explain
from morvit_deploy.strict_json import parse_json

FORMAT = "morvit-plan/1"
TAKEN = ("stem", "none", "keep")  # names of other graphs and branches; so is `keep_NAME`
FULL = "full"  # the last bucket of a ladder: every token in every step, so it fits every image

Share = Annotated[float, Field(ge=0, le=1)]


class Bucket(Strict):
    """A named schedule, exported as one static graph.

    `share` is the fraction of calibration images that use the bucket. `upto` is its entry in the dispatch table in
    mode `threshold`: the largest number of patch tokens at the first routed step for which it is chosen.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    capacity: Annotated[tuple[Count, ...], Field(min_length=1)]
    macs: Count
    share: Share | None = None
    upto: Annotated[int, Field(ge=0)] | None = None


class Plan(Strict):
    """Routing mode, a threshold on router logits for each step (null: the step is not routed), and buckets."""

    format: Literal["morvit-plan/1"]
    mode: Mode
    thresholds: tuple[Threshold | None, ...] | None
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1)]
    checkpoint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # sha256, of its checkpoint
    calibration: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        problems = []
        if (self.thresholds is not None) != (self.mode == "threshold"):
            problems.append(
                f"thresholds: expected numbers in mode 'threshold' and null otherwise; got mode {self.mode!r}"
            )
        names = [bucket.name for bucket in self.buckets]
        if len(set(names)) != len(names):
            problems.append(f"buckets: got names {names}, expected distinct names")
        taken = [name for name in names if name in TAKEN or name.startswith("keep_")]
        if taken:
            problems.append(f"buckets: got names {taken}, which are reserved for other graphs; use b0, b1, …")
        if self.mode == "topk" and len(self.buckets) > 1:
            problems.append(
                f"buckets: got {len(self.buckets)}, expected 1 in mode 'topk', which uses it for every image"
            )
        if self.mode == "threshold":
            bounds = [bucket.upto for bucket in self.buckets]
            if None in bounds or any(a > b for a, b in pairwise(bounds)):  # type: ignore[operator]  # None came first
                problems.append(
                    f"buckets: got upto {bounds}, expected ascending numbers, one for each bucket"
                )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def __repr__(self) -> str:
        ladder = ", ".join(f"{bucket.name} {count(bucket.macs)}MACs" for bucket in self.buckets)
        return f"Plan({self.mode!r}, {numbered(len(self.buckets), 'bucket')}: {ladder})"

    __str__ = __repr__

    @property
    def lead(self) -> int:
        """The first routed step, from 0. Its token counts predict the bucket; the stem ends at its router."""
        routed = [step for step, threshold in enumerate(self.thresholds or ()) if threshold is not None]
        return routed[0] if routed else 0

    @property
    def adaptive(self) -> bool:
        """Whether there are several buckets, one of which is chosen for each image."""
        return len(self.buckets) > 1

    def bucket(self, name: str) -> Bucket:
        """Return the bucket called `name`; PlanError lists the available buckets."""
        for bucket in self.buckets:
            if bucket.name == name:
                return bucket
        raise PlanError(f"got bucket {name!r}; the plan has {', '.join(b.name for b in self.buckets)}")

    def dispatched(self, counts: NDArray[Any], group: int = 1) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the index of the bucket that each image runs in, and whether the predicted bucket overflowed.

        counts (images, steps) are the patch tokens that run each step. A graph that chooses a bucket itself runs
        `group` images in a row in one bucket. Mode `depth` knows the counts before it chooses one that fits all of
        them, so it never overflows.
        """
        return self.chosen(self.predicted(counts), self.too_small(counts), group)

    def too_small(self, counts: NDArray[Any]) -> NDArray[np.bool_]:
        """Return which buckets hold fewer tokens than an image needs, (images, buckets)."""
        limits = np.array([bucket.capacity for bucket in self.buckets])
        small: NDArray[np.bool_] = np.logical_or.reduce(counts[:, None, :] > limits, axis=-1)
        return small

    def predicted(self, counts: NDArray[Any]) -> NDArray[np.int64]:
        """Return the index of the bucket that is chosen for each image before it runs."""
        chosen: NDArray[np.int64]
        if self.mode != "threshold":
            chosen = np.argmin(self.too_small(counts), axis=1)
            return chosen
        bounds = np.array([bucket.upto for bucket in self.buckets])
        chosen = np.searchsorted(bounds, counts[:, self.lead])
        return chosen

    def chosen(
        self, predicted: NDArray[np.int64], too_small: NDArray[np.bool_], group: int = 1
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return bucket and overflow as `dispatched` does, from the predictions and from `too_small`."""
        images = np.arange(len(predicted))
        if not len(images):
            return predicted, np.zeros(0, dtype=bool)
        starts = images[::group]
        if self.mode != "threshold":
            fits_not_all = np.logical_or.reduceat(too_small, starts, axis=0)
            return np.argmin(fits_not_all, axis=1)[images // group], np.zeros(len(images), dtype=bool)
        bucket = np.maximum.reduceat(predicted, starts)[images // group]
        overflow = too_small[images, bucket]
        again = np.logical_or.reduceat(overflow, starts)[images // group]
        return np.where(again, len(self.buckets) - 1, bucket), overflow

    def to_json(self) -> str:
        """Return the text of a plan file; `load_plan` restores an equal object."""
        return self.model_dump_json(indent=2) + "\n"


def own_plan(config: Config) -> Plan:
    """Return the plan that needs no calibration: one bucket with the checkpoint's own schedule.

    Without a schedule the bucket is `full`, every token in every step, which saves no compute.
    """
    if config.schedule is not None:
        return topk_plan(config, config.schedule)
    everyone = (config.num_patches,) * config.num_steps
    upto = None if config.thresholds is None else config.num_patches
    bucket = Bucket(
        name=FULL, capacity=everyone, macs=bucket_macs(config, everyone, config.thresholds), upto=upto
    )
    return Plan(format="morvit-plan/1", mode=config.own_mode, thresholds=config.thresholds, buckets=(bucket,))


def topk_plan(config: Config, capacity: tuple[int, ...]) -> Plan:
    """Return a plan of one bucket that selects the top k by the given schedule."""
    bucket = Bucket(name="topk", capacity=capacity, macs=schedule_macs(config, capacity))
    return Plan(format="morvit-plan/1", mode="topk", thresholds=None, buckets=(bucket,))


def is_own(plan: Plan, config: Config) -> bool:
    """Whether the plan routes exactly as the checkpoint was trained, so that the exported graph is exact."""
    if plan.thresholds != config.thresholds:
        return False
    return config.schedule is None or plan.buckets[0].capacity == config.schedule


def bucket_macs(
    config: Config,
    capacity: tuple[int, ...],
    thresholds: tuple[float | None, ...] | None,
    unformed_keys: bool = True,
) -> int:
    """Return the MACs of one image in a bucket, including the stem; `unformed_keys` as for `schedule_macs`."""
    routed = None if thresholds is None else routed_by(config, thresholds)
    return schedule_macs(config, capacity, routed=routed, unformed_keys=unformed_keys)


def recounted(plan: Plan, config: Config) -> Plan:
    """Return the plan with the MACs of the graphs that are written today; an older plan may count K and V."""
    buckets = tuple(
        bucket.model_copy(update={"macs": bucket_macs(config, bucket.capacity, plan.thresholds)})
        for bucket in plan.buckets
    )
    return plan.model_copy(update={"buckets": buckets})


def load_plan(path: str | Path, config: Config, fingerprint: str | None = None) -> Plan:
    """Read a plan file and check it against the checkpoint's configuration and sha256 (`fingerprint`).

    Raises PlanError, which lists every problem.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PlanError(
            f"cannot read {path}: {error.strerror}; a plan is a JSON file that `morvit-deploy calibrate` writes"
        ) from None
    parse_json(text, path, PlanError, what=f"a {FORMAT} plan")
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        raise PlanError(f"{path} is not a {FORMAT} plan:\n{explain(error)}") from None
    return check_plan(plan, config, fingerprint, source=str(path))


def read_plan(plan: Path | Plan, config: Config, fingerprint: str) -> Plan:
    """The plan of a file, or one that was just made, held against its checkpoint as by `load_plan`."""
    if isinstance(plan, Path):
        return load_plan(plan, config, fingerprint)
    return check_plan(plan, config, fingerprint, source="the plan")


def check_plan(plan: Plan, config: Config, fingerprint: str | None, *, source: str) -> Plan:
    """The plan, `recounted`; PlanError where it does not fit the checkpoint."""
    if fingerprint is not None and plan.checkpoint not in (None, fingerprint):
        raise PlanError(
            f"{source} was made for another checkpoint (got sha256 {fingerprint[:12]}…, the plan expects "
            f"{plan.checkpoint[:12]}…); run `morvit-deploy calibrate` on this checkpoint"
        )
    if problems := plan_problems(plan, config):
        raise PlanError(f"{source} does not fit the checkpoint:\n{listed(problems)}")
    return recounted(plan, config)


def plan_problems(plan: Plan, config: Config) -> list[str]:
    """Return the reasons why a plan does not fit a configuration; empty if it does."""
    steps, patches = config.num_steps, config.num_patches
    wanted = config.record.modes
    if plan.mode not in wanted:
        return [f"mode: got {plan.mode!r}, expected {' or '.join(wanted)} with routing {config.routing!r}"]
    problems = []
    if plan.thresholds is not None:
        if config.thresholds not in (None, plan.thresholds):
            return [
                f"thresholds: got {json.dumps(plan.thresholds)}, expected the checkpoint's own, "
                f"{json.dumps(config.thresholds)}; fit buckets to these with `morvit-deploy calibrate`"
            ]
        problems = threshold_problems(plan.thresholds, config)
        if len(plan.thresholds) != steps:
            return problems
    if plan.mode == "threshold" and plan.adaptive and all(t is None for t in plan.thresholds or ()):
        problems.append(
            "thresholds: got only null, expected at least one number: several buckets require a routed step"
        )
    for bucket in plan.buckets:
        found = schedule_problems(bucket.capacity, config)
        problems += [f"buckets.{bucket.name}.{problem}" for problem in found]
        if found:
            continue
        if not config.record.routes and min(bucket.capacity) < patches:
            problems.append(
                f"buckets.{bucket.name}.capacity: expected {patches} at each step: no token leaves"
            )
        if plan.mode == "depth" and bucket.capacity[0] < patches:
            problems.append(
                f"buckets.{bucket.name}.capacity[0]: expected {patches}: every token runs the first layer"
            )
        fallen = unthresholded_problems(bucket.capacity, plan.thresholds or (), config)
        problems += [f"buckets.{bucket.name}.{problem}" for problem in fallen]
        macs = bucket_macs(config, bucket.capacity, plan.thresholds)
        earlier = bucket_macs(config, bucket.capacity, plan.thresholds, unformed_keys=False)
        if bucket.macs not in (macs, earlier):
            problems.append(
                f"buckets.{bucket.name}.macs: got {bucket.macs:,}, expected {macs:,} for this capacity"
            )
    if plan.mode != "topk":
        last = plan.buckets[-1]
        if (last.name, last.capacity) != (FULL, (patches,) * steps):
            problems.append(
                f"buckets: got {last.name!r} {list(last.capacity)} as the last bucket, expected {FULL!r} with "
                f"{patches} at each step, which fits every image"
            )
        if plan.mode == "threshold" and last.upto != patches:
            problems.append(f"buckets.{last.name}.upto: got {last.upto}, expected {patches}")
    return problems
