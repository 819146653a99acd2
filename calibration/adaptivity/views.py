"""Adaptive depth as a table: what was measured, and the limits that the rule holds it against. No torch."""

from __future__ import annotations

from morvit_deploy.calibration.adaptivity.rule import Adaptivity
from morvit_deploy.calibration.adaptivity.spread import Spread
from morvit_deploy.model.answers.accuracy import Interval
from morvit_deploy.report import Table, cost_in, share

CAPTION = (
    "a budget is the number of tokens that run the routed steps; 95 % intervals are in brackets; one bucket for "
    "all: a graph that holds the tokens of every image; a bucket per image: a lower bound of the expected cost"
)


def adaptivity_table(found: Adaptivity) -> Table:
    """Return how accuracy depends on depth, how counts vary, and what follows."""
    rows = [*_depth_rows(found), *_spread_rows(found)]
    if found.topk is not None:
        rows.append(("cheapest top-k", f"{cost_in(found.topk, found.unit)}, of those that keep accuracy"))
    if found.rival is not None and found.saving is not None:
        saved = f"up to {found.saving:.2f}× over {found.rival[0]}" if found.saving > 1 else "nothing"
        rows.append(("can save", saved))
    rows.append(("outcome", found.outcome))
    return Table("Adaptive depth", ("what", "value"), rows, caption=CAPTION)


def _depth_rows(found: Adaptivity) -> list[tuple[str, str]]:
    if (depth := found.depth) is None:
        why = (
            "`inspect` with images measures it"
            if found.full is not None
            else "no smaller budget was compared"
        )
        return [("depth", f"not measured: {why}")]
    at = f"{share(depth.smaller)} at {depth.scale:g} × the tokens, {share(depth.trained)} as trained"
    slope = f"{100 * depth.slope:.1f} points ({_points(depth.slope_interval)})"
    return [
        (depth.of, at),
        ("lost per halved budget", slope),
        ("depth", depth.effect),
    ]


def _spread_rows(found: Adaptivity) -> list[tuple[str, str]]:
    spread = found.spread
    if spread is None:
        why = "the same for every image" if found.one_number else "not measured: only top-k was compared"
        return [("token counts", why)]
    return [
        ("tokens per step", _tokens(spread, found.estimated)),
        ("one bucket for all", cost_in(spread.one, found.unit)),
        ("a bucket per image", f"{cost_in(spread.each, found.unit)}, {spread.ratio:.2f}× cheaper"),
    ]


def _tokens(spread: Spread, estimated: bool) -> str:
    basis = ", estimated from the first routed step" if estimated else ""
    return (
        f"{spread.mean:.1f} ± {spread.deviation:.1f} per image; {spread.low:.1f} to {spread.high:.1f} for nine of "
        f"ten images{basis}"
    )


def _points(interval: Interval) -> str:
    low, high = (f"{100 * bound:.1f}" for bound in interval)
    return f"{low} to {high}"
