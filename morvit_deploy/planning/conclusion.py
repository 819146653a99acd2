"""What a calibration concludes, in words: the recommended point, and whether adaptivity pays. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from morvit_deploy.calibration.buckets.choice import recommend
from morvit_deploy.calibration.buckets.points import Point
from morvit_deploy.calibration.routing.sequence import OWN
from morvit_deploy.report import cost_in, numbered, share

if TYPE_CHECKING:
    from morvit_deploy.planning.calibrated import Calibrated

FEW = 100  # images: with fewer, one image is more than 1 %


def conclusion(found: Calibrated) -> str:
    """The recommendation, whether adaptivity pays and can pay, and what was chosen if that is another point."""
    sentences = [_recommendation(found), _adaptivity(found), _prospect(found)]
    if found.chosen != found.recommended:
        row = found.rows.index(found.chosen) + 1
        keeps = found.floor.keeps(found.chosen.agreement, found.chosen.top1)
        below = "" if keeps else f", which does not keep {found.floor.of}"
        sentences.append(f"This plan is row {row}, {named(found.chosen)}{below}.")
    if found.floor.images < FEW:
        one = share(1 / found.floor.images)
        sentences.append(f"One image is {one}: calibrate with hundreds before relying on this.")
    return " ".join(filter(None, sentences))


def adaptivity_pays(found: Calibrated) -> bool | None:
    """Whether the recommended point chooses a bucket for each image; None if that was not compared."""
    best = found.recommended
    if best is None or all(point.kind == "topk" for point in found.points):
        return None
    if best.is_fitted:
        return best.ladder is not None and len(best.ladder.schedules) > 1
    return best.kind == "threshold"


def named(point: Point) -> str:
    """A point in words."""
    if point.is_fitted:
        assert point.ladder is not None
        to = "the depths of tokens" if point.kind == "depth" else "the checkpoint's own thresholds"
        return f"{numbered(len(point.ladder.schedules), 'bucket')} fitted to {to}"
    if point.kind == "topk" and point.scale == OWN and not point.replaces_thresholds:
        return "top-k at the trained capacities, which `export` gives without a plan"
    kind = {"topk": "top-k", "threshold": "thresholds"}[point.kind]
    return f"{kind} at {point.scale:g} × the trained capacities"


def _recommendation(found: Calibrated) -> str:
    point, floor = found.recommended, found.floor
    images = numbered(floor.images, "image")
    if point is None:
        return f"Nothing is recommended: no point keeps {floor.of} of at least {share(floor.at_least)} on {images}."
    return f"Recommended: {named(point)}, {cost_in(point.expected, found.unit)} per image; {_kept(found, point)}."


def _kept(found: Calibrated, point: Point) -> str:
    """How the point's accuracy lies to the floor."""
    floor, images = found.floor, numbered(found.floor.images, "image")
    one = f"on {images}; one image is {share(1 / floor.images)}"
    if floor.interval is None:
        return f"agreement is {share(point.agreement)}, at least {share(floor.at_least)} ({one})"
    if floor.trained_top1 is None:
        return f"agreement is {share(point.agreement)}, not below the 95 % interval of 99 % ({floor.interval} {one})"
    return (
        f"top-1 is {share(point.accuracy)}, not below the 95 % interval of the trained model's "
        f"{share(floor.trained_top1)} ({floor.interval} {one})"
    )


def _adaptivity(found: Calibrated) -> str:
    best, pays = found.recommended, adaptivity_pays(found)
    if best is None or pays is None:
        return ""
    if best.is_fitted:
        cheaper = (
            f"{found.dense / best.expected:.2f}× cheaper than `full`, which runs every token in every layer"
        )
        return (
            f"Adaptivity pays here: {cheaper}." if pays else "Adaptivity does not pay here: one bucket does."
        )
    if pays:
        other = _cheapest(found, "topk")
        return f"Adaptivity pays here: {_lead(found, other, 'top-k', 'costs')}."
    other = _cheapest(found, "threshold")
    return f"Adaptivity does not pay here: {_lead(found, other, 'thresholds', 'cost')}."


def _prospect(found: Calibrated) -> str:
    """Whether adaptive depth can pay, and why not; empty if the sentence before says it."""
    adaptivity = found.adaptivity
    return "" if adaptivity.outcome == "no thresholds keep accuracy" else adaptivity.sentence


def _lead(found: Calibrated, other: Point | None, kind: str, verb: str) -> str:
    """What the best point of the other kind costs."""
    if other is None:
        return f"no {kind} point keeps {found.floor.of}"
    return f"{kind} that keep{'s' if verb == 'costs' else ''} {found.floor.of} {verb} at least " + cost_in(
        other.expected, found.unit
    )


def _cheapest(found: Calibrated, kind: str) -> Point | None:
    own: Sequence[Point] = [point for point in found.points if point.kind == kind]
    return recommend(own, found.floor)
