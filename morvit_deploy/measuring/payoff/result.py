"""The faster form at each batch size, and by how much, from raw samples. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Any

from morvit_deploy.measuring.core.results import MeasuredBundle
from morvit_deploy.measuring.payoff.forms import ADAPTIVE, DENSE, TOPK, Form
from morvit_deploy.report import Report, Shown
from morvit_deploy.timing.arithmetic import OVERFLOWED, shares_of
from morvit_deploy.timing.result import Ratio, Result, ratio_of

PAYS, DOES_NOT, UNDECIDED = "pays", "does not pay", "undecided"
RULE = (
    "adaptivity pays if its faster form is faster than all others in every block, and does not if another form is "
    "faster in every block; this compares speed only: the forms return different logits, see `verify`"
)


@dataclass(frozen=True)
class Contender:
    """One form at one batch size."""

    form: Form
    measured: MeasuredBundle

    @property
    def block_ms(self) -> list[float]:
        """Mean milliseconds per image of each block."""
        return [block.mean_ms / self.measured.batch for block in self.measured.blocks]

    @property
    def median_ms(self) -> float:
        """Median of the blocks' milliseconds per image."""
        return median(self.block_ms)

    @property
    def mix(self) -> dict[str, float] | None:
        """Share of the timed images by bucket; None for one bucket."""
        kinds = [kind for block in self.measured.blocks for kind in block.kinds]
        return shares_of(kinds) if kinds else None

    def as_dict(self) -> dict[str, Any]:
        """Figures per image, and every raw sample."""
        mix = self.mix
        overflow = None if mix is None else mix.get(OVERFLOWED, 0.0)
        return {
            "form": self.form.kind,
            "dispatch": self.form.dispatch,
            "capacity": list(self.form.plan.buckets[0].capacity) if self.form.kind == TOPK else None,
            "ms_per_image": self.median_ms,
            "block_ms_per_image": self.block_ms,
            "mix": None if mix is None else {"shares": mix, "overflow": overflow},
            "measured": self.measured.as_dict(),
        }


@dataclass(frozen=True)
class Match:
    """All forms at one batch size."""

    batch: int
    contenders: tuple[Contender, ...]

    @property
    def best(self) -> Contender:
        """The faster adaptive form."""
        adaptive = [one for one in self.contenders if one.form.kind == ADAPTIVE]
        return min(adaptive, key=lambda one: one.median_ms)

    def against(self, one: Contender, kind: str) -> Ratio | None:
        """Speed-up of a contender over top-k or dense; None if that is missing or the contender itself."""
        other = next((other for other in self.contenders if other.form.kind == kind), None)
        return None if other in (None, one) else ratio_of(one.measured, other.measured, means=True)

    @property
    def ratios(self) -> dict[str, Ratio]:
        """Speed-up of the faster adaptive form over each of the others."""
        found = {kind: self.against(self.best, kind) for kind in (TOPK, DENSE)}
        return {kind: ratio for kind, ratio in found.items() if ratio}

    @property
    def outcome(self) -> str:
        """PAYS, DOES_NOT or UNDECIDED; see RULE."""
        ranges = [ratio.per_block for ratio in self.ratios.values()]
        if all(min(ratios) > 1 for ratios in ranges):
            return PAYS
        return DOES_NOT if any(max(ratios) < 1 for ratios in ranges) else UNDECIDED

    @property
    def sentence(self) -> str:
        """The outcome and its reason, in words."""
        found = {PAYS: "adaptivity pays", DOES_NOT: "adaptivity does not pay", UNDECIDED: "undecided"}
        reasons = [f"{in_words(ratio)} as fast as {kind}" for kind, ratio in self.ratios.items()]
        return f"{found[self.outcome]}: {self.best.form.name} is {' and '.join(reasons)}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "batch": self.batch,
            "outcome": self.outcome,
            "sentence": self.sentence,
            "best": self.best.form.name,
            "ratios": {kind: ratio.as_dict() for kind, ratio in self.ratios.items()},
            "contenders": [one.as_dict() for one in self.contenders],
        }


def in_words(ratio: Ratio) -> str:
    """Median and extremes, as in 1.31× (1.27–1.36)."""
    return f"{ratio.median:.2f}× ({min(ratio.per_block):.2f}–{max(ratio.per_block):.2f})"


@dataclass(frozen=True, kw_only=True)
class Payoff(Result[MeasuredBundle], Shown):
    """The matches of one run."""

    bundle: str  # whose plan is measured
    matches: tuple[Match, ...]
    left_out: tuple[str, ...]  # forms that were left out, with the reason

    def __repr__(self) -> str:
        outcomes = ", ".join(f"batch {match.batch} {match.outcome}" for match in self.matches)
        return f"Payoff({self.bundle!r}, {outcomes})"

    def report(self) -> Report:
        """The outcome, each batch size, and the conditions."""
        from morvit_deploy.measuring.payoff.views import payoff_report

        return payoff_report(self)

    def as_dict(self) -> dict[str, Any]:
        """What `bench --verdict --json` prints."""
        found = {
            "bundle": self.bundle,
            "rule": RULE,
            "left_out": list(self.left_out),
            "batches": [match.as_dict() for match in self.matches],
        }
        return super().as_dict() | {"verdict": found}
