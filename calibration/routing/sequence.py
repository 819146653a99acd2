"""The rounds of a calibration: which thresholds are known, and what to count next. No torch.

τ₁ comes from the router logits at the first routed step; then the logits at the next one are counted under τ₁; and so
on. A threshold keeps as many tokens, on the mean, as the schedule it stands for.
"""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.calibration.routing.histograms import Histogram, threshold_for
from morvit_deploy.calibration.routing.statistics import Run, Statistics, Thresholds, told_of
from morvit_deploy.errors import ImageError, PlanError
from morvit_deploy.model.config import Config
from morvit_deploy.model.macs import last_step_decides

OWN = 1.0
# of the checkpoint's capacities: the points of the Pareto front
SCALES = (0.35, 0.5, 0.7, 0.85, OWN, 1.25, 1.6)
NOBODY = 0.0  # a threshold where no token is left to be asked: any would do


def routed(config: Config) -> tuple[int, ...]:
    """Steps (from 0) at which the checkpoint's schedule lets tokens leave, and at which that matters."""
    assert config.capacity is not None
    before = (config.num_patches, *config.capacity)
    deciding = config.num_recursions if last_step_decides(config) else config.num_recursions - 1
    return tuple(step for step in range(deciding) if config.capacity[step] < before[step])


def scaled(config: Config, scale: float) -> tuple[int, ...]:
    """The checkpoint's schedule with `scale` times as many tokens, 1 to N; steps that are not routed stay so."""
    assert config.capacity is not None
    capacity, now, leaving = [], config.num_patches, set(routed(config))
    for step, own in enumerate(config.capacity):
        if step in leaving:
            now = min(now, max(1, round(scale * own)))
        capacity.append(now)
    return tuple(capacity)


def target(config: Config, scale: float, step: int, images: int) -> int:
    """Tokens, over all images, that a threshold shall keep at a routed step (from 0)."""
    assert config.capacity is not None
    return round(min(scale * config.capacity[step], config.num_patches) * images)


def rounds_of(config: Config, mode: str) -> int:
    """Passes over the images: one for each threshold, and one that counts who ran."""
    return len(routed(config)) + 1 if mode == "threshold" else 1


def thresholds_after(config: Config, run: Run, done: Sequence[Statistics]) -> tuple[Thresholds, ...]:
    """For each scale the thresholds up to the step that the next round looks at; all of them for the last round.

    `done` are the joined statistics of the rounds so far, in order. None stands for a step that is not routed; modes
    other than `threshold` have none at all.
    """
    if run.mode != "threshold":
        return ((),) * len(run.scales)
    steps = routed(config)
    known = steps[: len(done)]
    end = steps[len(done)] if len(done) < len(steps) else config.num_recursions
    result = []
    for i, scale in enumerate(run.scales):
        thresholds: list[float | None] = [None] * end
        for step, statistics in zip(known, done, strict=False):  # the last round sets none
            wanted = target(config, scale, step, statistics.images)
            thresholds[step] = _threshold(statistics.histograms[i], wanted)
        result.append(tuple(thresholds))
    return tuple(result)


def _threshold(histogram: Histogram, wanted: int) -> float:
    return threshold_for(histogram, wanted) if histogram.total else NOBODY


class Rounds:
    """The rounds that are done, each held against those before it."""

    def __init__(self, config: Config, run: Run, max_bad: int) -> None:
        self.config, self.run, self.max_bad = config, run, max_bad
        self.needed = rounds_of(config, run.mode)
        self.done: list[Statistics] = []

    @property
    def complete(self) -> bool:
        """Are all rounds done?"""
        return len(self.done) == self.needed

    @property
    def last(self) -> Statistics:
        """Who ran and what was answered."""
        return self.done[-1]

    @property
    def thresholds(self) -> tuple[Thresholds, ...]:
        """Known so far, for each scale."""
        return thresholds_after(self.config, self.run, self.done)

    def add(self, whole: Statistics) -> None:
        """The next round, joined. ImageError and PlanError for what does not follow from the rounds before."""
        number = len(self.done) + 1
        if whole.run != self.run:
            raise PlanError(
                f"round {number} is of another run: {whole.run.differences(self.run)}; give each run a folder of "
                "its own"
            )
        whole.check_bad(self.max_bad)
        if not whole.images:
            raise ImageError(f"none of the {self.run.count} images could be read; nothing to calibrate with")
        if self.done and whole.digest != self.done[0].digest:
            raise ImageError(
                f"the images changed between rounds 1 and {number} (other pixels, or others could be read); "
                "begin again, with an empty --stats folder if there is one"
            )
        if whole.thresholds != self.thresholds:
            raise PlanError(
                f"round {number} of shards {told_of(whole.shards)} was counted under other thresholds than the "
                "rounds before it lead to; remove its files and those after it, and run the shards again"
            )
        self.done.append(whole)
