"""Energy of measured blocks from power samples, by the trapezoid rule, minus the idle energy. mW × s = mJ."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

FEWEST_SAMPLES = 5  # in the blocks, and in the idle time: fewer say little about a load that comes in bursts
LARGEST_GAP = 5.0  # times the median sample spacing: beyond, the power in between is unknown
RESTLESS = 0.2  # standard deviation of the idle power, as a share of it: beyond, other work ran


class Sample(NamedTuple):
    """Input power at a moment of the monotonic clock."""

    at_s: float
    mw: float


class Block(NamedTuple):
    """A period of measured work and how many images it ran."""

    start_s: float
    end_s: float
    images: int


class Unmeasured(Exception):
    """The samples do not cover the work; the message gives the reason."""


def energy_per_image(samples: list[Sample], idle: tuple[float, float], blocks: list[Block]) -> dict[str, Any]:
    """mJ per image and the figures behind it; `per_image_mj` is None, with a `reason`, if it is unknown."""
    sampled = _sampled(samples, idle, blocks)
    try:
        return {**sampled, **_measure(samples, idle, blocks, sampled["images"]), "reason": None}
    except Unmeasured as why:
        return {**sampled, "per_image_mj": None, "reason": str(why)}


def integrate(samples: list[Sample], start_s: float, end_s: float, largest_gap_s: float) -> float:
    """mJ from `start_s` to `end_s`; samples are in order of time. The ends are interpolated between samples.

    Raises Unmeasured when two samples, or an end and the next sample, are farther apart than `largest_gap_s`.
    """
    inside = [sample for sample in samples if start_s < sample.at_s < end_s]
    points = [_at(samples, start_s, largest_gap_s), *inside, _at(samples, end_s, largest_gap_s)]
    total = 0.0
    for index in range(1, len(points)):
        width = points[index].at_s - points[index - 1].at_s
        if width > largest_gap_s:
            raise Unmeasured(f"no power was read for {width:.2f} s in the middle of the measurement")
        total += width * (points[index].mw + points[index - 1].mw) / 2
    return total


def _measure(
    samples: list[Sample], idle: tuple[float, float], blocks: list[Block], images: int
) -> dict[str, Any]:
    seconds = sum(block.end_s - block.start_s for block in blocks)
    if images <= 0 or seconds <= 0:
        raise Unmeasured("no images were run while power was read")
    inside = [sample for block in blocks for sample in _within(samples, block.start_s, block.end_s)]
    resting = _within(samples, *idle)
    for found, what in ((inside, "the measured blocks"), (resting, "the idle time before")):
        if len(found) < FEWEST_SAMPLES:
            raise Unmeasured(
                f"power was read {len(found)} times in {what}, at least {FEWEST_SAMPLES} are needed; "
                "measure for longer"
            )
    largest_gap_s = LARGEST_GAP * _spacing(samples)
    drawn_mj = sum(integrate(samples, block.start_s, block.end_s, largest_gap_s) for block in blocks)
    idle_mw = statistics.mean(sample.mw for sample in resting)
    noise_mw = statistics.pstdev(sample.mw for sample in resting)
    net_mj = drawn_mj - idle_mw * seconds
    if net_mj <= 0:
        raise Unmeasured(
            f"the machine drew {drawn_mj / seconds:.0f} mW while measured and {idle_mw:.0f} mW while idle: "
            "other work ran before, or the load is too small to see"
        )
    return {
        "per_image_mj": net_mj / images,
        "per_image_with_idle_mj": drawn_mj / images,
        "mean_mw": drawn_mj / seconds,
        "highest_mw": max(sample.mw for sample in inside),
        "idle_mw": idle_mw,
        "idle_noise_mw": noise_mw,
        "remarks": _remarks(net_mj / seconds, idle_mw, noise_mw),
    }


def _remarks(net_mw: float, idle_mw: float, noise_mw: float) -> list[str]:
    found = []
    if noise_mw > RESTLESS * idle_mw:
        found.append(
            f"the idle power varied by {noise_mw:.0f} mW around {idle_mw:.0f} mW: other work ran, so the energy per "
            "image is inaccurate"
        )
    if net_mw < 2 * noise_mw:
        found.append(f"the load added {net_mw:.0f} mW, no more than twice the noise of {noise_mw:.0f} mW")
    return found


def _sampled(samples: list[Sample], idle: tuple[float, float], blocks: list[Block]) -> dict[str, Any]:
    return {
        "images": sum(block.images for block in blocks),
        "seconds": sum(block.end_s - block.start_s for block in blocks),
        "idle_seconds": idle[1] - idle[0],
        "samples": len(samples),
        "sample_spacing_s": _spacing(samples) if len(samples) > 1 else None,
    }


def _within(samples: list[Sample], start_s: float, end_s: float) -> list[Sample]:
    return [sample for sample in samples if start_s <= sample.at_s <= end_s]


def _spacing(samples: list[Sample]) -> float:
    return statistics.median(
        samples[index].at_s - samples[index - 1].at_s for index in range(1, len(samples))
    )


def _at(samples: list[Sample], at_s: float, largest_gap_s: float) -> Sample:
    """Power at a moment, interpolated between its neighbours, or that of the only one near enough."""
    before = [sample for sample in samples if sample.at_s <= at_s][-1:]
    after = [sample for sample in samples if sample.at_s >= at_s][:1]
    near = [sample for sample in (*before, *after) if abs(sample.at_s - at_s) <= largest_gap_s]
    if not near:
        raise Unmeasured("power was not read at the beginning or the end of the measurement")
    if len(near) == 1 or near[0].at_s == near[1].at_s:
        return Sample(at_s, near[0].mw)
    share = (at_s - near[0].at_s) / (near[1].at_s - near[0].at_s)
    return Sample(at_s, near[0].mw + share * (near[1].mw - near[0].mw))
