"""The rounds of a calibration, each of which determines a threshold. No torch.

The first round determines τ₁ from the router logits at the first routed step, the second τ₂ from the logits at the
next one with τ₁ applied, and so on. On average, a threshold keeps as many tokens as the schedule it replaces.
"""

from __future__ import annotations

from collections.abc import Sequence

from morvit_deploy.calibration.routing.histograms import Histogram, threshold_for
from morvit_deploy.calibration.routing.statistics import Run, Statistics, Thresholds, shard_names
from morvit_deploy.errors import ImageError, PlanError
from morvit_deploy.model.config import Config
from morvit_deploy.model.routings.schedules import last_step_decides

OWN = 1.0
# factors of the checkpoint's capacities: the points of the Pareto front
SCALES = (0.35, 0.5, 0.7, 0.85, OWN, 1.25, 1.6)
NOBODY = 0.0  # an arbitrary threshold for a step without candidates


def is_fitted(config: Config, mode: str) -> bool:
    """Whether a calibration in this mode only fits buckets, to the counts of the checkpoint's own routing."""
    return config.ragged and mode == config.own_mode


def scales_of(config: Config, mode: str) -> tuple[float, ...]:
    """Return the scales that a calibration of this checkpoint counts."""
    return (OWN,) if is_fitted(config, mode) else SCALES


def kinds_of(config: Config, mode: str) -> tuple[str, ...]:
    """Return the ways to route, modes of a plan, that a calibration compares with the trained model."""
    compares = mode == "threshold" and not is_fitted(config, mode)
    return ("topk", "threshold") if compares else (mode,)


def routed(config: Config) -> tuple[int, ...]:
    """Return the steps (from 0) at which tokens leave as the checkpoint was trained, if this has an effect."""
    if config.thresholds is not None:
        return tuple(step for step, threshold in enumerate(config.thresholds) if threshold is not None)
    assert config.capacity is not None
    before = (config.num_patches, *config.capacity)
    deciding = config.num_recursions if last_step_decides(config) else config.num_recursions - 1
    return tuple(step for step in range(deciding) if config.capacity[step] < before[step])


def scaled(config: Config, scale: float) -> tuple[int, ...]:
    """Return the checkpoint's schedule with `scale` times as many tokens, 1 to N, and the same routed steps."""
    assert config.capacity is not None
    capacity, now, leaving = [], config.num_patches, set(routed(config))
    for step, own in enumerate(config.capacity):
        if step in leaving:
            now = min(now, max(1, round(scale * own)))
        capacity.append(now)
    return tuple(capacity)


def target(config: Config, scale: float, step: int, images: int) -> int:
    """Return how many tokens of all images a threshold should keep at a routed step (from 0)."""
    assert config.capacity is not None
    return round(min(scale * config.capacity[step], config.num_patches) * images)


def rounds_of(config: Config, mode: str) -> int:
    """Return the number of passes over the images: one for each threshold, and one for counts."""
    searches = mode == "threshold" and not is_fitted(config, mode)
    return len(routed(config)) + 1 if searches else 1


def thresholds_after(config: Config, run: Run, done: Sequence[Statistics]) -> tuple[Thresholds, ...]:
    """Return the thresholds of each scale before the step of the next round; for the last round, all of them.

    `done` are the joined statistics of the previous rounds, in order. The threshold is None at a step that is not
    routed. Modes other than `threshold` have no thresholds. Those that the checkpoint owns are known from the start.
    """
    if run.mode != "threshold":
        return ((),) * len(run.scales)
    if config.thresholds is not None:
        return (config.thresholds,) * len(run.scales)
    steps = routed(config)
    known = steps[: len(done)]
    end = steps[len(done)] if len(done) < len(steps) else config.num_recursions
    result = []
    for i, scale in enumerate(run.scales):
        thresholds: list[float | None] = [None] * end
        for step, statistics in zip(known, done, strict=False):  # the last round determines none
            wanted = target(config, scale, step, statistics.images)
            thresholds[step] = _threshold(statistics.histograms[i], wanted)
        result.append(tuple(thresholds))
    return tuple(result)


def _threshold(histogram: Histogram, wanted: int) -> float:
    return threshold_for(histogram, wanted) if histogram.total else NOBODY


class Rounds:
    """The completed rounds, each checked against the previous ones."""

    def __init__(self, config: Config, run: Run, max_bad: int) -> None:
        self.config, self.run, self.max_bad = config, run, max_bad
        self.needed = rounds_of(config, run.mode)
        self.done: list[Statistics] = []

    @property
    def complete(self) -> bool:
        """Whether all rounds are done."""
        return len(self.done) == self.needed

    @property
    def last(self) -> Statistics:
        """The last round, with counts and tallies."""
        return self.done[-1]

    @property
    def thresholds(self) -> tuple[Thresholds, ...]:
        """The thresholds known so far, for each scale."""
        return thresholds_after(self.config, self.run, self.done)

    def add(self, whole: Statistics) -> None:
        """Add the joined statistics of the next round; ImageError or PlanError if they contradict previous rounds."""
        number = len(self.done) + 1
        if whole.run != self.run:
            raise PlanError(
                f"round {number} belongs to another run: {whole.run.differences(self.run)}; use a separate folder "
                "for each run"
            )
        whole.check_bad(self.max_bad)
        if not whole.images:
            raise ImageError(f"none of the {self.run.count} images could be read; nothing to calibrate with")
        if self.done and whole.digest != self.done[0].digest:
            raise ImageError(
                f"the images changed between rounds 1 and {number} (different pixels, or different images could be "
                "read); start again, with an empty --stats folder if you use one"
            )
        if whole.thresholds != self.thresholds:
            raise PlanError(
                f"round {number} of shards {shard_names(whole.shards)} used other thresholds than those of the "
                "previous rounds; remove its files and those of later rounds, and run the shards again"
            )
        self.done.append(whole)
