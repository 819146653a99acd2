"""`calibrate` of a plain ViT: the merges of a budget, in place of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morvit_deploy.cli.shared.console import emit, note, working
from morvit_deploy.cli.shared.pages import with_command
from morvit_deploy.errors import PlanError

if TYPE_CHECKING:
    from morvit_deploy.cli.calibrate import Counted, Parts, Wanted
    from morvit_deploy.cli.shared.groups import Output
    from morvit_deploy.report import Report

BUDGETS = ("budget_macs", "budget_ms")


def is_unrouted(checkpoint: Path) -> bool:
    """Whether no token of a native checkpoint leaves, so that there is nothing but merges to calibrate."""
    from morvit_deploy.model.config import load_config

    return not load_config(checkpoint).record.routes


def macs_of(budget: str | None) -> float | None:
    """A budget in MACs; PlanError for one that is no number."""
    if budget is None:
        return None
    try:
        return float(budget)
    except ValueError:
        shares = "; a share as in 0.6x is for a plain ViT" if budget.lower().endswith("x") else ""
        raise PlanError(f"--budget-macs: got {budget!r}, expected a number as in 1.2e9{shares}") from None


def calibrate_merges(
    checkpoint: Path,
    counted: Counted,
    wanted: Wanted,
    parts: Parts,
    out: Path,
    output: Output,
    said: dict[str, Any] | None,
) -> Report:
    """Find the merges, write them to `out`, and print the curve; returns what a page has."""
    _check(counted, wanted, parts)
    assert counted.images is not None
    with working("loading PyTorch") as (tell, progress):
        from morvit_deploy.files import check_files
        from morvit_deploy.planning import merges

        check_files([out], force=output.force, replaces=merges.is_schedule_file)
        found = merges.calibrate_merges(
            checkpoint, counted.images, wanted.budget_macs, budget_ms=wanted.budget_ms, threads=wanted.threads,
            limit=counted.limit, seed=counted.seed, upscale=counted.upscale, exif=counted.exif, tell=tell,
            progress=progress,
        )  # fmt: skip  # four lines read better than nine
        merges.write_schedule(found, out, force=output.force)
    report = found.report()
    emit(report, found.as_dict() | {"file": str(out), "images_read": said}, output.json)
    note(f"the merges are in {out}; `morvit-deploy export CHECKPOINT --merge {out}` writes the bundle")
    return with_command(report)


def _check(counted: Counted, wanted: Wanted, parts: Parts) -> None:
    """PlanError unless there is one budget and nothing that merges have no use for."""
    given = [name for name in BUDGETS if getattr(wanted, name) is not None]
    if not given:
        raise PlanError(
            "--budget-macs: missing; a plain ViT has no routing to calibrate, but its tokens can merge within a "
            "budget: give one, as in 0.6x of its MACs, or --budget-ms"
        )
    if len(given) > 1:
        raise PlanError("got budget_macs and budget_ms, expected one of them: leave the other out")
    used = (*BUDGETS, "threads") if wanted.budget_ms is not None else BUDGETS
    unused = _given(wanted, but=used) + _given(parts) + (["max_bad"] if counted.max_bad else [])
    if unused:
        raise PlanError(
            f"{', '.join('--' + name.replace('_', '-') for name in unused)}: not used for a plain ViT, whose tokens "
            f"merge within --{given[0].replace('_', '-')}; leave it out"
        )


def _given(group: Wanted | Parts, but: Sequence[str] = ()) -> list[str]:
    """The options of a group that are not at their defaults."""
    defaults = type(group)()
    return [
        name for name, value in vars(group).items() if name not in but and value != getattr(defaults, name)
    ]
