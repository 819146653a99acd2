"""The requirements for a plan. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from morvit_deploy.calibration.buckets.choice import Asked
from morvit_deploy.errors import PlanError
from morvit_deploy.keywords import did_you_mean

Mode = Literal["threshold", "topk"]
Cost = Literal["macs", "measured"]


@dataclass(frozen=True)
class Wish:
    """The requirements for a plan."""

    mode: str | None = (
        None  # "threshold" or "topk": only these; ignored by routings that support only "depth"
    )
    buckets: int | None = None  # including `full`; None: as many as reduce the cost noticeably
    cost: str = "macs"  # or "measured"
    budget_macs: float | None = None  # expected MACs per image
    budget_ms: float | None = None
    threads: int | None = None  # for measured costs
    pick: int | None = None  # row of the table of points, in place of the recommended one
    scale: float | None = None  # of the trained capacities, in place of the recommended one
    min_agreement: float | None = None  # with the trained model; None: the default floor
    allow_worse: bool = False  # accept a plan that ruins the model

    def __post_init__(self) -> None:
        for name, allowed in (("mode", ("threshold", "topk")), ("cost", ("macs", "measured"))):
            if getattr(self, name) not in (None, *allowed):
                hint = did_you_mean(getattr(self, name), allowed)
                raise PlanError(f"{name}: got {getattr(self, name)!r}, expected {' or '.join(allowed)}{hint}")
        if self.buckets is not None and self.buckets < 1:
            raise PlanError(f"buckets: got {self.buckets}, expected at least 1 (`full`)")
        names = ("budget_macs", "budget_ms", "pick", "scale")
        given = [name for name in names if getattr(self, name) is not None]
        if len(given) > 1:
            raise PlanError(f"got {' and '.join(given)}, expected one of them")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise PlanError(f"min_agreement: got {self.min_agreement}, expected a share from 0 to 1")
        for name in ("budget_macs", "budget_ms", "scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise PlanError(f"{name}: got {value}, expected a number above 0")

    def asked(self, mode: str) -> Asked:
        """The choice among the points of a run in this mode."""
        kind = None if self.mode is None else mode
        return Asked(kind, self.budget_ms, self.budget_macs, self.pick, self.scale)

    @property
    def measured(self) -> bool:
        """Whether costs are measured in milliseconds."""
        return self.cost == "measured" or self.budget_ms is not None
