"""The outcome of a verification: the gaps between the models compared, and what failed. No torch."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from morvit_deploy.model.gates import Gate
from morvit_deploy.report import Report, Shown, numbered
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
    """The outcome of a comparison."""

    structure: dict[str, Any]
    routing_gap: Gap  # trained model -> the plan's; only measured where the plan's is an approximation
    conversion_gap: Gap  # static graphs in float64 -> the runtime
    router_agreement: list[float] | None  # per step; None where the graph has no probes (baseline forms)
    images: int
    ambiguous: int  # images whose routing margin is below MARGIN, not compared
    synthetic: bool
    first_divergence: str | None = None
    margins: list[float] = field(default_factory=list)
    same_checkpoint: bool = True  # the weights are those the bundle was made from, byte for byte
    unrolling_gap: Gap | None = None  # the plan's model -> static graphs; None where that is the routing gap
    routing_change: RoutingChange | None = None  # where the plan's model is an approximation
    min_agreement: float = 0.0  # least top-1 agreement across the routing gap
    buckets: list[BucketSeen] = field(default_factory=list)
    dispatched: Dispatched | None = None
    precision: str = "fp32"
    gate: Gate | None = (
        None  # below fp32: the required agreement of decisions and classes, in place of the conversion gap
    )
    fidelity: list[Fidelity] = field(default_factory=list)  # of each bucket, below fp32
    runtime: str = ""  # what ran the bundle
    warnings: tuple[str, ...] = ()  # what makes results worse on this machine than where it was exported

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
        """Structure proved, both gaps closed and every decision alike, on at least one compared image.

        Below fp32 the conversion gap is measured, and decisions and classes are held to the gate.
        """
        return (
            self.structure.get("proved") is True
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
        """What a bundle below fp32 misses of its gate, a phrase each."""
        if self.gate is None:
            return []
        lines = []
        for seen in self.fidelity:
            where = f"bucket {seen.bucket}, " if len(self.fidelity) > 1 else ""
            lines += [
                f"{self.precision}, {where}step {step}: {share:.2%} of the tokens are routed alike, at least "
                f"{self.gate.tokens:.2%} expected"
                for step, share in enumerate(seen.token_agreement, start=1)
                if not share >= self.gate.tokens
            ]
            if len(seen.flips) > self.gate.allowed_flips(seen.images):
                lines.append(
                    f"{self.precision}, {where}{len(seen.flips)} of {seen.images} images change their class, at "
                    f"most {self.gate.allowed_flips(seen.images)} expected (top-1 agreement {self.gate.top1:.2%})"
                )
            if not math.isfinite(seen.snr_db) and seen.snr_db < 0:
                lines.append(f"{self.precision}, {where}logits are not finite")
        return lines

    @property
    def only_gate_missed(self) -> bool:
        """Would it have passed with a lower gate? Only that can be let through."""
        return not self.passed and replace(self, gate=Gate(0.0, 0.0)).passed

    @property
    def gaps(self) -> list[tuple[str, Gap]]:
        """Name and gap, in the order of the way from the checkpoint to the runtime."""
        unrolling = [] if self.unrolling_gap is None else [("unrolling", self.unrolling_gap)]
        return [("routing", self.routing_gap), *unrolling, ("conversion", self.conversion_gap)]

    @property
    def failure(self) -> str:
        """What failed, a sentence each."""
        if self.images == self.ambiguous:
            return f"all {self.images} images have a routing margin below {MARGIN}; give others with --images"
        lines = (
            [] if self.same_checkpoint else ["the bundle was made from other weights than this checkpoint's"]
        )
        if self.routing_gap.top1_agreement < self.min_agreement:
            lines.append(
                f"routing gap: top-1 agreement {self.routing_gap.top1_agreement:.1%} of the plan's model with the "
                f"trained one, at least {self.min_agreement:.1%} asked for"
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
                lines.append(f"step {step}: {share:.2%} of the routers' decisions are alike, expected all")
        for bucket in self.buckets:
            if not bucket.judged:
                lines.append(f"bucket {bucket.name}: no image could be judged in it; give more with --images")
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
                f"{self.dispatched.misdirected} images in another bucket than the plan says"
            )
        if self.first_divergence:
            lines.append(f"first to diverge: {self.first_divergence}")
        violations = self.structure.get("violations", [])
        lines += violations[:SHOWN_VIOLATIONS]
        if len(violations) > SHOWN_VIOLATIONS:
            lines.append(f"and {len(violations) - SHOWN_VIOLATIONS} more violations of the structure")
        return "the bundle is not the checkpoint:\n" + "\n".join(f"  - {line}" for line in lines)

    def as_dict(self) -> dict[str, Any]:
        """The `verify --json` report."""
        return {
            "passed": self.passed,
            "structure": self.structure,
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
