"""The checks of a verification: one record for each quantity that is judged. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from morvit_deploy.model.answers.gates import Gate, allowed_misses
from morvit_deploy.verifying.findings import finite


@dataclass(frozen=True)
class Check:
    """A quantity, what is required of it, and whether it holds.

    `name` is its place in `verify --json`, as the table in docs/verification.md lists it. Verification passes if all
    of its checks do.
    """

    name: str
    value: float
    limit: float  # the largest or smallest value that passes
    passed: bool
    message: str = ""  # one line, for a check that fails
    of_gate: bool = False  # a user may accept a bundle below fp32 that misses its gate

    def as_dict(self) -> dict[str, Any]:
        """For reports."""
        value, limit = finite(float(self.value)), finite(float(self.limit))
        return {"name": self.name, "value": value, "limit": limit, "passed": self.passed}


@dataclass(frozen=True)
class Below:
    """Judges a bundle below fp32: fractions of decisions, and the error of logits."""

    precision: str
    gate: Gate
    images: int

    @property
    def enough(self) -> bool:
        """Whether there are enough images to judge fractions."""
        return self.images >= self.gate.images_needed

    def of_images(self) -> Check:
        """Whether there are enough images."""
        needed = self.gate.images_needed
        message = (
            f"too few images to judge {self.precision}: got {self.images}, expected at least {needed} for a gate of "
            f"{min(self.gate.tokens, self.gate.top1):.2%}; give more with --images, and a higher --limit"
        )
        return Check("images", self.images, needed, self.enough, message, of_gate=True)

    def by_chance(self, decisions: int) -> int:
        """Return how many of a number of decisions may differ without the gate being missed."""
        return allowed_misses(self.gate.tokens, decisions)

    def tokens(self, where: str, misses: int, of: int) -> Iterator[Check]:
        """Judge the tokens routed otherwise at a step; nothing with too few images, which is a check by itself."""
        allowed = self.by_chance(of)
        message = (
            f"{self.precision}, {where}: got token agreement {1 - misses / max(of, 1):.2%}, expected at least "
            f"{self.gate.tokens:.2%} ({misses:,} of {of:,} decisions differ, at most {allowed:,} by chance)"
        )
        if self.enough:
            yield Check(
                "fidelity[].token_agreement[]", misses, allowed, misses <= allowed, message, of_gate=True
            )

    def classes(self, name: str, where: str, flips: int, of: int) -> Iterator[Check]:
        """Judge the images that change their class."""
        allowed = self.gate.allowed_flips(of)
        message = (
            f"{self.precision}, {where}{flips} of {of} images change their class, expected at most {allowed} "
            f"(top-1 agreement {self.gate.top1:.2%})"
        )
        if self.enough:
            yield Check(name, flips, allowed, flips <= allowed, message, of_gate=True)

    def implied(self, name: str, what: str, misses: int, of: int) -> Iterator[Check]:
        """Judge an output that follows from the graph's own router decisions: no loss of precision excuses it."""
        allowed = self.by_chance(of)
        if self.enough:
            yield Check(name, misses, allowed, misses <= allowed, f"{what} for {misses} images")

    def logits(self, name: str, where: str, median_db: float) -> Iterator[Check]:
        """Judge the median over the images of the signal-to-noise ratio of the logits."""
        if not median_db > float("-inf"):
            yield Check(name, median_db, 0.0, False, f"{self.precision}, {where}logits are not finite")
            return
        message = (
            f"{self.precision}, {where}logits: got a signal-to-noise ratio of {median_db:.1f} dB (median of the "
            f"images), expected at least {self.gate.snr_db:.1f} dB"
        )
        yield Check(name, median_db, self.gate.snr_db, median_db >= self.gate.snr_db, message, of_gate=True)
