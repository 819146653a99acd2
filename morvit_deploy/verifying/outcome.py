"""The outcome of a verification: gaps, gates, and what failed. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from morvit_deploy.errors import listed
from morvit_deploy.model.gates import Gate
from morvit_deploy.report import Report, Shown, numbered
from morvit_deploy.sources.outputs.gap import NOT_CHECKED, SourceGap
from morvit_deploy.verifying.findings import (
    MARGIN,
    BucketSeen,
    Dispatched,
    Fidelity,
    Gap,
    RoutingChange,
    finite,
)

SHOWN_VIOLATIONS = 3


@dataclass(frozen=True)
class Verification(Shown):
    """The outcome of a verification."""

    structure: dict[str, Any]
    routing_gap: Gap  # trained model -> plan's model; only measured if the plan is an approximation
    conversion_gap: Gap  # static graphs in float64 -> runtime
    router_agreement: list[float] | None  # per step; None if the graph has no probes (baseline forms)
    images: int
    ambiguous: int  # images whose routing margin is below MARGIN, not compared
    synthetic: bool
    first_divergence: str | None = None
    margins: list[float] = field(default_factory=list)
    same_checkpoint: bool = True  # the bundle was exported from this checkpoint
    unrolling_gap: Gap | None = None  # plan's model -> static graphs; None if this is the routing gap
    routing_change: RoutingChange | None = None  # if the plan is an approximation
    min_agreement: float = 0.0  # minimum top-1 agreement of the routing gap
    buckets: list[BucketSeen] = field(default_factory=list)
    dispatched: Dispatched | None = None
    precision: str = "fp32"
    gate: Gate | None = None  # below fp32: required agreement of decisions and classes
    fidelity: list[Fidelity] = field(default_factory=list)  # of each bucket, below fp32
    runtime: str = ""  # that ran the bundle
    source: SourceGap | None = None  # source's own outputs -> checkpoint; None if they were not given
    reading: str = NOT_CHECKED  # how the reading of the checkpoint was checked
    warnings: tuple[str, ...] = ()  # why results may be worse on this machine than on the exporting one

    def __repr__(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        images = numbered(self.images, "synthetic image" if self.synthetic else "image")
        gap = f"max |Δlogit| {self.conversion_gap.max_abs:.2g}"
        return f"Verification({outcome}, {images}, {gap}, top-1 agreement {self.conversion_gap.top1_agreement:.1%})"

    def report(self) -> Report:
        """The structure of the written graph, and the comparison with the reference."""
        from morvit_deploy.verifying.views import parity_tables, structure_tables

        data = self.as_dict()
        return Report("Verification", [*structure_tables(data["structure"]), *parity_tables(data)])

    @property
    def passed(self) -> bool:
        """Whether the structure is proved, all gaps are within tolerance and all decisions equal.

        Requires at least one compared image. Below fp32 decisions and classes must meet the gate instead.
        """
        return (
            self.structure.get("proved") is True
            and (self.source is None or self.source.passed)
            and all(gap.passed for _, gap in self.gaps)
            and self.routing_gap.top1_agreement >= self.min_agreement
            and not any(not b.judged for b in self.buckets)
            and (self._exact if self.gate is None else not self.missed)
            and self.images > self.ambiguous
        )

    @property
    def _exact(self) -> bool:
        return (
            not any(b.wrong_overflow or b.wrong_depth for b in self.buckets)
            and (self.dispatched is None or self.dispatched.passed)
            and all(share == 1.0 for share in self.router_agreement or ())
        )

    @property
    def missed(self) -> list[str]:
        """The requirements of the gate that a bundle below fp32 misses."""
        if self.gate is None:
            return []
        lines = []
        for seen in self.fidelity:
            where = f"bucket {seen.bucket}, " if len(self.fidelity) > 1 else ""
            lines += [
                f"{self.precision}, {where}step {step}: got token agreement {share:.2%}, expected at least "
                f"{self.gate.tokens:.2%}"
                for step, share in enumerate(seen.token_agreement, start=1)
                if not share >= self.gate.tokens
            ]
            if len(seen.flips) > self.gate.allowed_flips(seen.images):
                lines.append(
                    f"{self.precision}, {where}{len(seen.flips)} of {seen.images} images change their class, "
                    f"expected at most {self.gate.allowed_flips(seen.images)} (top-1 agreement {self.gate.top1:.2%})"
                )
            if not math.isfinite(seen.snr_db) and seen.snr_db < 0:
                lines.append(f"{self.precision}, {where}logits are not finite")
        return lines

    @property
    def only_gate_missed(self) -> bool:
        """Whether it fails only because of the gate, which the user may accept."""
        return not self.passed and replace(self, gate=Gate(0.0, 0.0)).passed

    @property
    def gaps(self) -> list[tuple[str, Gap]]:
        """Names and gaps, in order from the checkpoint to the runtime."""
        unrolling = [] if self.unrolling_gap is None else [("unrolling", self.unrolling_gap)]
        return [("routing", self.routing_gap), *unrolling, ("conversion", self.conversion_gap)]

    @property
    def failure(self) -> str:
        """The message of a failed verification."""
        if self.images == self.ambiguous:
            return f"all {self.images} images have a routing margin below {MARGIN}; give others with --images"
        lines = (
            []
            if self.same_checkpoint
            else ["the bundle was exported from another checkpoint (sha256 differs)"]
        )
        if self.source is not None and not self.source.passed:
            lines.append(self.source.failure.replace("\n", "\n  "))
        if self.routing_gap.top1_agreement < self.min_agreement:
            lines.append(
                f"routing gap: got top-1 agreement {self.routing_gap.top1_agreement:.1%} of the plan's model with "
                f"the trained model, expected at least {self.min_agreement:.1%}"
            )
        for name, gap in self.gaps:
            if not gap.passed:
                lines.append(
                    f"{name} gap: max |Δlogit| {gap.max_abs:.3g} (at most {gap.tolerance:.3g}), "
                    f"top-1 agreement {gap.top1_agreement:.1%}"
                )
        if self.gate is not None:
            lines += self.missed
        for step, share in enumerate(self.router_agreement or (), start=1):
            if self.gate is None and share < 1:
                lines.append(f"step {step}: {share:.2%} of the routers' decisions are equal, expected all")
        for bucket in self.buckets:
            if not bucket.judged:
                lines.append(f"bucket {bucket.name}: no image could be compared; give more with --images")
            if self.gate is not None:
                continue
            if bucket.wrong_overflow:
                lines.append(f"bucket {bucket.name}: overflow is wrong for {bucket.wrong_overflow} images")
            if bucket.wrong_depth:
                lines.append(f"bucket {bucket.name}: depth is wrong for {bucket.wrong_depth} images")
        if self.gate is None and self.dispatched is not None and not self.dispatched.passed:
            gap = self.dispatched.gap
            lines.append(
                f"dispatch: max |Δlogit| {gap.max_abs:.3g} (at most {gap.tolerance:.3g}), "
                f"{self.dispatched.misdirected} images ran in another bucket than the plan requires"
            )
        if self.first_divergence:
            lines.append(f"first divergence: {self.first_divergence}")
        violations = self.structure.get("violations", [])
        lines += violations[:SHOWN_VIOLATIONS]
        if len(violations) > SHOWN_VIOLATIONS:
            lines.append(f"and {len(violations) - SHOWN_VIOLATIONS} more structure violations")
        return "the bundle does not match the checkpoint:\n" + listed(lines)

    def as_dict(self) -> dict[str, Any]:
        """Return the report of `verify --json`."""
        return {
            "passed": self.passed,
            "structure": self.structure,
            "reading": self.reading,
            "source_gap": self.source.as_dict() if self.source else None,
            "routing_gap": self.routing_gap.as_dict() | self._change(),
            "unrolling_gap": self.unrolling_gap.as_dict() if self.unrolling_gap else None,
            "conversion_gap": self.conversion_gap.as_dict(),
            "router_agreement": self.router_agreement,
            "first_divergence": self.first_divergence,
            "images": self.images,
            "ambiguous": self.ambiguous,
            "synthetic": self.synthetic,
            "runtime": self.runtime,
            "warnings": list(self.warnings),
            "same_checkpoint": self.same_checkpoint,
            "min_margin": finite(min(self.margins, default=None)),
            "buckets": [bucket.as_dict() for bucket in self.buckets],
            "dispatch": self.dispatched.as_dict() if self.dispatched else None,
            "precision": self.precision,
            "gate": asdict(self.gate) if self.gate else None,
            "fidelity": [seen.as_dict() for seen in self.fidelity],
        }

    def _change(self) -> dict[str, Any]:
        change = self.routing_change
        if change is None:
            return {}
        return {
            "decision_agreement": change.agreement,
            "kept_share": change.kept_share,
            "margin_histogram": change.margin_histogram,
        }
