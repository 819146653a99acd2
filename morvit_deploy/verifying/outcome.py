"""The outcome of a verification: what was found, what of it is judged, and what failed. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from morvit_deploy.errors import listed
from morvit_deploy.model.answers.gates import Gate
from morvit_deploy.report import Report, Shown, numbered
from morvit_deploy.sources.outputs.gap import NOT_CHECKED, SourceGap
from morvit_deploy.verifying.checks import Check
from morvit_deploy.verifying.findings import (
    BucketSeen,
    Dispatched,
    Edges,
    Fidelity,
    Gap,
    RoutingChange,
    finite,
)
from morvit_deploy.verifying.judging import checks_of

UNDECIDED = ("ambiguous", "images")  # checks of the images: the bundle may be right


@dataclass(frozen=True)
class Verification(Shown):
    """The outcome of a verification."""

    structure: dict[str, Any]
    routing_gap: Gap  # trained model -> plan's model; only measured if the plan is an approximation
    conversion_gap: Gap  # static graphs in float64 -> runtime
    router_agreement: list[float] | None  # per step; None if the graph has no probes (baseline forms)
    images: int
    ambiguous: int  # images whose routing margin, relative to the spread of the logits, is below MARGIN: not compared
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
    clearances: list[float] = field(
        default_factory=list
    )  # routing margins relative to the router logits' spread
    edges: Edges | None = None  # constructed pictures at the bounds of buckets
    judges_tokens: bool = True  # below fp32: the gate holds for decisions on tokens, too

    def __repr__(self) -> str:
        outcome = "passed" if self.passed else "FAILED"
        images = numbered(self.images, "synthetic image" if self.synthetic else "image")
        gap = f"max |Δlogit| {self.conversion_gap.max_abs:.2g}"
        return f"Verification({outcome}, {images}, {gap}, top-1 agreement {self.conversion_gap.top1_agreement:.1%})"

    def report(self) -> Report:
        """The structure of the written graph, and the comparison with the reference."""
        from morvit_deploy.verifying.views import outcome_sentence, parity_tables, structure_tables

        data = self.as_dict()
        tables = [*structure_tables(data["structure"]), *parity_tables(data)]
        return Report("Verification", list(tables), outcome_sentence(self))

    @cached_property
    def checks(self) -> list[Check]:
        """One record for each quantity that is judged."""
        return checks_of(self)

    @property
    def failed(self) -> list[Check]:
        """The checks that do not hold."""
        return [check for check in self.checks if not check.passed]

    @property
    def passed(self) -> bool:
        """Whether all checks hold."""
        return not self.failed

    @property
    def missed(self) -> list[str]:
        """The requirements of the gate that a bundle below fp32 misses."""
        return [check.message for check in self.failed if check.of_gate]

    @property
    def only_gate_missed(self) -> bool:
        """Whether it fails only because of the gate, which the user may accept."""
        return not self.passed and all(check.of_gate for check in self.failed)

    @property
    def gaps(self) -> list[tuple[str, Gap]]:
        """Names and gaps, in order from the checkpoint to the runtime."""
        unrolling = [] if self.unrolling_gap is None else [("unrolling", self.unrolling_gap)]
        return [("routing", self.routing_gap), *unrolling, ("conversion", self.conversion_gap)]

    @property
    def failure(self) -> str:
        """The message of a failed verification."""
        lines = list(dict.fromkeys(check.message for check in self.failed))
        if len(lines) == 1 and self.failed[0].name in UNDECIDED:
            return lines[0]
        if not self.same_checkpoint:
            lines.insert(0, "the bundle was exported from another checkpoint (sha256 differs)")
        if self.first_divergence:
            lines.append(f"first divergence: {self.first_divergence}")
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
            "min_clearance": finite(min(self.clearances, default=None)),
            "buckets": [bucket.as_dict() for bucket in self.buckets],
            "dispatch": self.dispatched.as_dict() if self.dispatched else None,
            "precision": self.precision,
            "gate": asdict(self.gate) if self.gate else None,
            **({} if self.judges_tokens else {"judges_tokens": False}),
            "fidelity": [seen.as_dict() for seen in self.fidelity],
            "edges": self.edges.as_dict() if self.edges else None,
            "checks": [check.as_dict() for check in self.checks],
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
