"""The rounds of a calibration: which thresholds are known, and what to count next. No torch.

τ₁ comes from the router logits at the first routed step; then the logits at the next one are counted under τ₁; and so
on. A threshold keeps as many tokens, on the mean, as the schedule it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.calibration.histograms import threshold_for
from morvit_deploy.calibration.statistics import Statistics
from morvit_deploy.config import Config

SCALES = (
    0.35,
    0.5,
    0.7,
    0.85,
    1.0,
    1.25,
    1.6,
)  # of the checkpoint's capacities: the points of the Pareto front
OWN = 1.0


def routed(config: Config) -> tuple[int, ...]:
    """Steps (from 0) at which the checkpoint's schedule lets tokens leave."""
    assert config.capacity is not None
    before = (config.num_patches, *config.capacity)
    return tuple(step for step, capacity in enumerate(config.capacity) if capacity < before[step])


def scaled(config: Config, scale: float) -> tuple[int, ...]:
    """The checkpoint's schedule with `scale` times as many tokens, 1 to N; steps that are not routed stay so."""
    assert config.capacity is not None
    every = range(config.num_recursions)
    capacity, now, leaving = [], config.num_patches, set(routed(config))
    for step in every:
        if step in leaving:
            now = min(now, max(1, round(scale * config.capacity[step])))
        capacity.append(now)
    return tuple(capacity)


def target(config: Config, scale: float, step: int, images: int) -> int:
    """Tokens, over all images, that a threshold shall keep at a routed step (from 0)."""
    assert config.capacity is not None
    return round(min(scale * config.capacity[step], config.num_patches) * images)


def thresholds_after(
    config: Config, scales: Sequence[float], rounds: Sequence[Statistics]
) -> list[tuple[float | None, ...]]:
    """For each scale the thresholds up to the step that the next round looks at; all of them after the last round.

    `rounds` are the joined statistics of the rounds done, in order. None stands for a step that is not routed.
    """
    steps = routed(config)
    known = steps[: len(rounds)]
    end = steps[len(rounds)] if len(rounds) < len(steps) else config.num_recursions
    result = []
    for i, scale in enumerate(scales):
        thresholds: list[float | None] = [None] * end
        for step, statistics in zip(known, rounds, strict=True):
            images = statistics.run.count - len(statistics.bad)
            thresholds[step] = threshold_for(statistics.histograms[i], target(config, scale, step, images))
        result.append(tuple(thresholds))
    return result
