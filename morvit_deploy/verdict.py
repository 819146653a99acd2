"""The outcome of a verification: two gaps, judged apart, and the routers' agreement. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

MARGIN = 1e-4  # router logits closer than this may swap by float32 round-off: such images are not judged
SHOWN_VIOLATIONS = 3


@dataclass(frozen=True)
class Gap:
    """How far two answers are apart over the judged images."""

    max_abs: float
    tolerance: float  # the largest difference allowed, already scaled
    top1_agreement: float

    @property
    def passed(self) -> bool:
        """Within tolerance, and every judged image gets the same class."""
        return bool(self.max_abs <= self.tolerance and self.top1_agreement == 1.0)

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        return {
            "max_abs": _finite(self.max_abs),
            "tolerance": _finite(self.tolerance),
            "top1_agreement": self.top1_agreement,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Verification:
    """The outcome of a comparison."""

    structure: dict[str, Any]
    routing_gap: Gap
    conversion_gap: Gap
    router_agreement: list[float] | None  # per step; None where the graph has no probes (baseline forms)
    images: int
    ambiguous: int  # images whose routing margin is below MARGIN, not judged
    synthetic: bool
    first_divergence: str | None = None
    margins: list[float] = field(default_factory=list)
    same_checkpoint: bool = True  # the weights are those the bundle was made from, byte for byte

    @property
    def passed(self) -> bool:
        """Structure proved, both gaps closed and every decision alike, on at least one judged image."""
        return (
            self.structure.get("proved") is True
            and self.routing_gap.passed
            and self.conversion_gap.passed
            and all(share == 1.0 for share in self.router_agreement or ())
            and self.images > self.ambiguous
        )

    @property
    def failure(self) -> str:
        """What failed, a sentence each."""
        if self.images == self.ambiguous:
            return f"all {self.images} images have a routing margin below {MARGIN}; give others with --images"
        lines = (
            [] if self.same_checkpoint else ["the bundle was made from other weights than this checkpoint's"]
        )
        for name, gap in (("routing", self.routing_gap), ("conversion", self.conversion_gap)):
            if not gap.passed:
                lines.append(
                    f"{name} gap: max |Δlogit| {gap.max_abs:.3g} (at most {gap.tolerance:.3g}), "
                    f"top-1 agreement {gap.top1_agreement:.1%}"
                )
        for step, share in enumerate(self.router_agreement or (), start=1):
            if share < 1:
                lines.append(f"step {step}: {share:.2%} of the routers' decisions are alike, expected all")
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
            "routing_gap": self.routing_gap.as_dict(),
            "conversion_gap": self.conversion_gap.as_dict(),
            "router_agreement": self.router_agreement,
            "first_divergence": self.first_divergence,
            "images": self.images,
            "ambiguous": self.ambiguous,
            "synthetic": self.synthetic,
            "same_checkpoint": self.same_checkpoint,
            "min_margin": _finite(min(self.margins, default=None)),
        }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity and no NaN: null stands for a number that is not one."""
    return value if value is not None and math.isfinite(value) else None
