"""The plan: routing mode and the ladder of buckets, cheapest first (`morvit-plan/1`). No torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from morvit_deploy.config import Config, Count, Finite, Strict
from morvit_deploy.macs import schedule_macs

FORMAT = "morvit-plan/1"

Share = Annotated[float, Field(ge=0, le=1)]


class Bucket(Strict):
    """A name and a schedule: one static graph. `share` is the part of the calibration images it serves."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    capacity: Annotated[tuple[Count, ...], Field(min_length=1)]
    macs: Count
    share: Share | None = None


class Plan(Strict):
    """Routing mode, thresholds on router logits, and the buckets."""

    format: Literal["morvit-plan/1"]
    mode: Literal["topk", "threshold", "depth"]
    thresholds: tuple[Finite, ...] | None
    buckets: Annotated[tuple[Bucket, ...], Field(min_length=1)]
    calibration: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Plan:
        if (self.thresholds is not None) != (self.mode == "threshold"):
            raise ValueError(
                f"thresholds: expected with mode 'threshold' and only then; mode is {self.mode!r}"
            )
        names = [bucket.name for bucket in self.buckets]
        if len(set(names)) != len(names):
            raise ValueError(f"buckets: got names {names}, expected each once")
        return self


def own_plan(config: Config) -> Plan:
    """The plan that needs no calibration: the checkpoint's own schedule in one bucket.

    token_choice has no schedule of its own: its only exact bucket without calibration is `full`, every token in
    every layer, which saves nothing.
    """
    if config.routing == "expert_choice":
        assert config.capacity is not None
        return _one_bucket(config, "topk", "topk", config.capacity)
    everyone = (config.num_patches,) * config.num_steps
    return _one_bucket(config, "depth" if config.routing == "token_choice" else "topk", "full", everyone)


def _one_bucket(config: Config, mode: Any, name: str, capacity: tuple[int, ...]) -> Plan:
    bucket = Bucket(name=name, capacity=capacity, macs=schedule_macs(config, capacity))
    return Plan(format="morvit-plan/1", mode=mode, thresholds=None, buckets=(bucket,))
