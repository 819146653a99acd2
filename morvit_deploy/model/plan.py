"""The plan: routing mode, thresholds and the ladder of buckets, cheapest first (`morvit-plan/1`). No torch."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from morvit_deploy.errors import PlanError
from morvit_deploy.model.config import Config, Count, Strict, explain, schedule_problems
from morvit_deploy.model.macs import last_step_decides, schedule_macs
from morvit_deploy.model.routings.record import Mode
from morvit_deploy.report import count, numbered

FORMAT = "morvit-plan/1"
TAKEN = ("stem", "none", "keep")  # graphs and branches beside the buckets'; `keep_NAME` is one too
FULL = "full"  # the last bucket of a ladder: every token in every step, so that every image has a bucket

Share = Annotated[float, Field(ge=0, le=1)]
FURTHEST = float(np.finfo(np.float32).max)
Threshold = Annotated[float, Field(ge=-FURTHEST, le=FURTHEST)]  # a router logit: float32 in the graph


class Bucket(Strict):
    """A name and a schedule: one static graph. `share` is the part of the calibration images it is chosen for.

    `upto` is the dispatch table's entry where a bucket is predicted: the most patch tokens that may run the first
    routed step for this bucket to be chosen.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    capacity: Annotated[tuple[Count, ...], Field(min_length=1)]
    macs: Count
    share: Share | None = None
    upto: Annotated[int, Field(ge=0)] | None = None


class Plan(Strict):
    """Routing mode, thresholds on router logits (null: this step is not routed), and the buckets."""

    format: Literal["morvit-plan/1"]
    mode: Mode
    thresholds: tuple[Threshold | None, ...] | None
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1)]
    checkpoint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None  # the weights it was fitted to
    calibration: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        problems = []
        if (self.thresholds is not None) != (self.mode == "threshold"):
            problems.append(
                f"thresholds: expected with mode 'threshold' and only then; mode is {self.mode!r}"
            )
        names = [bucket.name for bucket in self.buckets]
        if len(set(names)) != len(names):
            problems.append(f"buckets: got names {names}, expected each once")
        taken = [name for name in names if name in TAKEN or name.startswith("keep_")]
        if taken:
            problems.append(
                f"buckets: got names {taken}, which other parts of a graph have; expected b0, b1, …"
            )
        if self.mode == "topk" and len(self.buckets) > 1:
            problems.append(
                f"buckets: got {len(self.buckets)}, expected one in mode 'topk': it is every image's"
            )
        if self.mode == "threshold":
            bounds = [bucket.upto for bucket in self.buckets]
            if None in bounds or any(a > b for a, b in pairwise(bounds)):  # type: ignore[operator]  # None came first
                problems.append(f"buckets: got upto {bounds}, expected rising numbers, one for each bucket")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def __repr__(self) -> str:
        ladder = ", ".join(f"{bucket.name} {count(bucket.macs)}MACs" for bucket in self.buckets)
        return f"Plan({self.mode!r}, {numbered(len(self.buckets), 'bucket')}: {ladder})"

    __str__ = __repr__

    @property
    def lead(self) -> int:
        """The first routed step, from 0: its counts predict the bucket, and the stem ends before it."""
        routed = [step for step, threshold in enumerate(self.thresholds or ()) if threshold is not None]
        return routed[0] if routed else 0

    @property
    def adaptive(self) -> bool:
        """Is a bucket chosen for each image?"""
        return len(self.buckets) > 1

    def bucket(self, name: str) -> Bucket:
        """The bucket called `name`; PlanError lists what there is."""
        for bucket in self.buckets:
            if bucket.name == name:
                return bucket
        raise PlanError(f"got bucket {name!r}; the plan has {', '.join(b.name for b in self.buckets)}")

    def dispatched(self, counts: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Number of the bucket that serves each image, and did the predicted one overflow.

        Counts (images, steps) are the patch tokens that run each step. Mode `depth` counts them before it chooses, so
        it never overflows.
        """
        limits = np.array([bucket.capacity for bucket in self.buckets])
        too_small = (counts[:, None, :] > limits).any(axis=-1)  # (images, buckets)
        if self.mode != "threshold":
            return np.argmin(too_small, axis=1), np.zeros(len(counts), dtype=bool)
        bounds = np.array([bucket.upto for bucket in self.buckets])
        chosen = np.searchsorted(bounds, counts[:, self.lead])
        overflow = np.take_along_axis(too_small, chosen[:, None], axis=1)[:, 0]
        return np.where(overflow, len(self.buckets) - 1, chosen), overflow

    def to_json(self) -> str:
        """The text of a plan file; `load_plan` reads it back to an equal object."""
        return self.model_dump_json(indent=2) + "\n"


def own_plan(config: Config) -> Plan:
    """The plan that needs no calibration: the checkpoint's own schedule in one bucket.

    Without a schedule the only exact bucket is `full`: every token in every step, which saves nothing.
    """
    if config.capacity is not None:
        return topk_plan(config, config.capacity)
    everyone = (config.num_patches,) * config.num_steps
    return _one_bucket(config, config.record.own_mode, FULL, everyone)


def topk_plan(config: Config, capacity: tuple[int, ...]) -> Plan:
    """Top-k by another schedule than the checkpoint's own, in one bucket."""
    return _one_bucket(config, "topk", "topk", capacity)


def is_own(plan: Plan, config: Config) -> bool:
    """Does the plan route as the checkpoint was trained to, so that its graph is exact and not an approximation?"""
    if plan.mode == "threshold":
        return False
    return not config.record.has_schedule or plan.buckets[0].capacity == config.capacity


def bucket_macs(
    config: Config, capacity: tuple[int, ...], thresholds: tuple[float | None, ...] | None
) -> int:
    """MACs of one image through a bucket, stem included."""
    routed = None if thresholds is None else routed_by(config, thresholds)
    return schedule_macs(config, capacity, routed=routed)


def routed_by(config: Config, thresholds: tuple[float | None, ...]) -> tuple[bool, ...]:
    """Is the router's logit read at each step of a threshold graph?"""
    return tuple(config.gate != "hard" or threshold is not None for threshold in thresholds)


def load_plan(path: str | Path, config: Config, fingerprint: str | None = None) -> Plan:
    """Read a plan file and hold it against the checkpoint it shall be used with.

    Raises PlanError with every problem found; `fingerprint` is the checkpoint's sha256.
    """
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PlanError(
            f"cannot read {path}: {error.strerror}; a plan is a JSON file that `morvit-deploy calibrate` writes"
        ) from None
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
    """The plan itself; PlanError where it does not fit the checkpoint."""
    if fingerprint is not None and plan.checkpoint not in (None, fingerprint):
        raise PlanError(
            f"{source} was made for another checkpoint (sha256 {plan.checkpoint[:12]}… in the plan, "
            f"{fingerprint[:12]}… given); run `morvit-deploy calibrate` on this one"
        )
    problems = plan_problems(plan, config)
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise PlanError(f"{source} does not fit the checkpoint:\n{listed}")
    return plan


def plan_problems(plan: Plan, config: Config) -> list[str]:
    """What keeps a plan from being one for this configuration."""
    steps, patches = config.num_steps, config.num_patches
    wanted = config.record.modes
    if plan.mode not in wanted:
        return [f"mode: got {plan.mode!r}, expected {' or '.join(wanted)} with routing {config.routing!r}"]
    problems = []
    if plan.thresholds is not None and len(plan.thresholds) != steps:
        return [f"thresholds: got {len(plan.thresholds)}, expected {steps} (one for each step)"]
    if plan.mode == "threshold" and plan.adaptive and all(t is None for t in plan.thresholds or ()):
        problems.append(
            "thresholds: got only null, so no step is routed, and there is nothing to choose a bucket by"
        )
    if plan.thresholds and plan.thresholds[-1] is not None and not last_step_decides(config):
        problems.append(
            f"thresholds[{steps - 1}]: got {plan.thresholds[-1]}, expected null: only CLS is read after the last "
            "step, so its router decides nothing"
        )
    for bucket in plan.buckets:
        found = schedule_problems(bucket.capacity, config)
        problems += [f"buckets.{bucket.name}.{problem}" for problem in found]
        if found:
            continue
        if not config.record.routes and min(bucket.capacity) < patches:
            problems.append(f"buckets.{bucket.name}.capacity: expected {patches} at each step: nobody leaves")
        if plan.mode == "depth" and bucket.capacity[0] < patches:
            problems.append(
                f"buckets.{bucket.name}.capacity[0]: expected {patches}: every token runs layer 1"
            )
        before = (patches, *bucket.capacity)
        problems += [
            f"buckets.{bucket.name}.capacity[{step}]: got {before[step + 1]} after {before[step]}, expected the "
            "same: nobody leaves at a step without a threshold"
            for step, threshold in enumerate(plan.thresholds or ())
            if threshold is None and before[step + 1] != before[step]
        ]
        if (macs := bucket_macs(config, bucket.capacity, plan.thresholds)) != bucket.macs:
            problems.append(f"buckets.{bucket.name}.macs: got {bucket.macs:,}, the schedule does {macs:,}")
    if plan.mode != "topk":
        last = plan.buckets[-1]
        if (last.name, last.capacity) != (FULL, (patches,) * steps):
            problems.append(
                f"buckets: the last is {last.name!r} {list(last.capacity)}, expected {FULL!r} with {patches} at each "
                "step, so that every image has a bucket"
            )
        if plan.mode == "threshold" and last.upto != patches:
            problems.append(f"buckets.{last.name}.upto: got {last.upto}, expected {patches}")
    return problems


def _one_bucket(config: Config, mode: Mode, name: str, capacity: tuple[int, ...]) -> Plan:
    bucket = Bucket(name=name, capacity=capacity, macs=schedule_macs(config, capacity))
    return Plan(format="morvit-plan/1", mode=mode, thresholds=None, buckets=(bucket,))
