"""What is required of each figure of a verification: the list of its checks. No torch.

A figure that is in `Verification.as_dict` and in no check here is listed as informative in docs/verification.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from morvit_deploy.verifying.checks import Below, Check
from morvit_deploy.verifying.findings import COMPARED_SHARE, MARGIN, BucketSeen, Gap

if TYPE_CHECKING:
    from morvit_deploy.verifying.outcome import Verification

SHOWN_VIOLATIONS = 3


def checks_of(found: Verification) -> list[Check]:
    """Return all checks of a verification, in the order in which failures are listed."""
    checks = [*_structure(found), *_source(found), *_compared(found), *_gaps(found)]
    if found.gate is None:
        return [*checks, *_exact(found), *_edges(found, 0)]
    below = Below(found.precision, found.gate, found.images)
    allowed = below.by_chance(found.edges.compared) if found.edges else 0
    return [*checks, below.of_images(), *_below(found, below), *_edges(found, allowed)]


def _structure(found: Verification) -> Iterator[Check]:
    """The structure of the written files, proved by the target's exporter."""
    violations = found.structure.get("violations", [])
    proved = found.structure.get("proved") is True
    lines = violations[:SHOWN_VIOLATIONS]
    if len(violations) > SHOWN_VIOLATIONS:
        lines = [*lines, f"and {len(violations) - SHOWN_VIOLATIONS} more structure violations"]
    message = "\n  - ".join(lines) or "the structure of the written graph is not proved"
    yield Check("structure.proved", float(proved), 1.0, proved, message)


def _source(found: Verification) -> Iterator[Check]:
    """The source's own outputs and the checkpoint as it was read, if they were given."""
    gap = found.source
    if gap is None:
        return
    message = gap.failure.replace("\n", "\n  ")
    yield Check("source_gap.compared", gap.compared, 1, gap.compared > 0, message)
    yield Check("source_gap.max_abs", gap.max_abs, gap.tolerance, gap.max_abs <= gap.tolerance, message)


def _compared(found: Verification) -> Iterator[Check]:
    """Enough images must have decisions that round-off cannot change."""
    compared, needed = found.images - found.ambiguous, COMPARED_SHARE * found.images
    kind = "give pictures with --images" if found.synthetic else "give other pictures with --images"
    ambiguous = "all" if found.ambiguous == found.images else f"{found.ambiguous} of"
    message = (
        f"{ambiguous} {found.images} images have a routing margin below {MARGIN} of the router logits' spread, and "
        f"are not compared; expected at least {COMPARED_SHARE:.0%} to be. Flat pictures cause this: {kind}. So do "
        "routers that hardly distinguish tokens: `morvit-deploy inspect CHECKPOINT` reports them"
    )
    yield Check("ambiguous", found.ambiguous, found.images - needed, 0 < compared >= needed, message)
    for bucket in found.buckets:
        message = (
            f"bucket {bucket.name}: no image could be compared; give more with --images"
            if not bucket.judged
            else f"bucket {bucket.name}: {bucket.judged} of {found.images} images could be compared, expected at "
            f"least {COMPARED_SHARE:.0%}; {kind}"
        )
        yield Check("buckets[].judged", bucket.judged, needed, 0 < bucket.judged >= needed, message)


def _gaps(found: Verification) -> Iterator[Check]:
    """Logits of two models, from the checkpoint to the runtime."""
    agreement = found.routing_gap.top1_agreement
    message = (
        f"routing gap: got top-1 agreement {agreement:.1%} of the plan's model with the trained model, expected at "
        f"least {found.min_agreement:.1%}"
    )
    wanted = found.min_agreement
    yield Check("routing_gap.top1_agreement", agreement, wanted, agreement >= wanted, message)
    for name, gap in found.gaps:
        if not math.isinf(gap.tolerance):
            yield from _gap(name, gap)


def _gap(name: str, gap: Gap) -> Iterator[Check]:
    message = (
        f"{name} gap: max |Δlogit| {gap.max_abs:.3g} (at most {gap.tolerance:.3g}), top-1 agreement "
        f"{gap.top1_agreement:.1%}"
    )
    yield from _logits(f"{name}_gap", gap, message)


def _logits(where: str, gap: Gap, message: str) -> Iterator[Check]:
    """Judge the largest difference and the classes; both have one message."""
    within = gap.max_abs <= gap.tolerance
    yield Check(f"{where}.max_abs", gap.max_abs, gap.tolerance, within, message)
    yield Check(f"{where}.top1_agreement", gap.top1_agreement, 1.0, gap.top1_agreement == 1.0, message)


def _exact(found: Verification) -> Iterator[Check]:
    """In fp32 every decision of the compared images must be equal."""
    for step, share in enumerate(found.router_agreement or (), start=1):
        message = f"step {step}: {share:.2%} of the routers' decisions are equal, expected all"
        yield Check("router_agreement[]", share, 1.0, share == 1.0, message)
    for bucket in found.buckets:
        for name, message, wrong in _flags(bucket):
            yield Check(name, wrong, 0, not wrong, f"{message} for {wrong} images")
    dispatched = found.dispatched
    if dispatched is not None:
        gap, wrong = dispatched.gap, dispatched.misdirected
        message = (
            f"dispatch: max |Δlogit| {gap.max_abs:.3g} (at most {gap.tolerance:.3g}), {wrong} images ran in another "
            "bucket than the plan requires"
        )
        yield from _logits("dispatch", gap, message)
        yield Check("dispatch.misdirected", wrong, 0, not wrong, message)


def _flags(bucket: BucketSeen) -> list[tuple[str, str, int]]:
    """Name, message and number of wrong images of a bucket's outputs beside the logits."""
    return [
        ("buckets[].wrong_overflow", f"bucket {bucket.name}: overflow is wrong", bucket.wrong_overflow),
        ("buckets[].wrong_depth", f"bucket {bucket.name}: depth is wrong", bucket.wrong_depth),
    ]


def _below(found: Verification, below: Below) -> Iterator[Check]:
    """Below fp32 decisions are held to the gate's fractions, and logits to its signal-to-noise ratio."""
    for seen in found.fidelity:
        where = f"bucket {seen.bucket}, " if len(found.fidelity) > 1 else ""
        for step, share in enumerate(seen.token_agreement if found.judges_tokens else (), start=1):
            of = seen.tokens or seen.images
            yield from below.tokens(f"{where}step {step}", round((1 - share) * of), of)
        yield from below.classes("fidelity[].class_flips", where, len(seen.flips), seen.images)
        finite = seen.snr_db > -math.inf
        yield from below.logits(
            "fidelity[].median_snr_db", where, seen.median_snr_db if finite else -math.inf
        )
    for bucket in found.buckets:
        for name, message, wrong in _flags(bucket):
            yield from below.implied(name, message, wrong, bucket.judged)
    dispatched = found.dispatched
    if dispatched is not None:
        of = dispatched.images
        yield from below.classes("dispatch.top1_agreement", "as dispatched, ", dispatched.class_flips, of)
        yield from below.logits("dispatch.median_snr_db", "as dispatched, ", dispatched.median_snr_db)
        ran = "dispatch: another bucket or overflow than the routers' decisions imply"
        yield from below.implied("dispatch.misdirected", ran, dispatched.misdirected, of)
        other = "dispatch: other logits than those of the image's bucket"
        yield from below.implied("dispatch.misserved", other, dispatched.misserved, of)


def _edges(found: Verification, allowed: int) -> Iterator[Check]:
    """Constructed pictures at the bounds of the buckets."""
    edges = found.edges
    if edges is not None:
        message = (
            f"bounds of the buckets: {edges.wrong} of {edges.compared} constructed pictures are wrong; the first "
            f"{edges.example}"
        )
        yield Check("edges.wrong", edges.wrong, allowed, edges.wrong <= allowed, message)
