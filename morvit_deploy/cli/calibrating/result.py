"""What `calibrate` writes and prints: the plan, its Pareto front, and how far a shard has come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from morvit_deploy.cli.shared.console import emit, note, say, warn
from morvit_deploy.cli.shared.pages import with_command

if TYPE_CHECKING:
    from morvit_deploy.planning.calibrated import Calibrated, PlanFiles
    from morvit_deploy.planning.rounds import Waiting
    from morvit_deploy.report import Report


def print_result(
    calibrated: Calibrated, files: PlanFiles, as_json: bool, images_read: dict[str, Any] | None = None
) -> Report:
    """Print it; returns what a page of it has."""
    from morvit_deploy.planning.front import calibration_report

    out, _, picture = files
    warnings = [*(f"not read: {reason}" for _, reason in calibrated.bad), *calibrated.remarks]
    warn(warnings)
    data = {
        "plan": calibrated.plan.model_dump(mode="json"),
        "pareto": calibrated.as_dict(),
        "files": list(map(str, files)),
        "images_read": images_read,
    }
    report = calibration_report(calibrated, out, picture)
    emit(report, data, as_json)
    return with_command(report, warnings)


def print_shard(shard: str, waiting: Waiting | None, as_json: bool) -> None:
    if as_json:
        rounds = {} if waiting is None else {"round": waiting.round, "rounds": waiting.rounds}
        missing = [] if waiting is None else list(map(str, waiting.missing))
        done = {"shard": shard, "done": waiting is None, **rounds, "missing": missing}
        say(json.dumps(done, indent=2))
        return
    if waiting is None:
        note(f"shard {shard}: all rounds are done; once every shard is done, join them with --merge")
        return
    note(
        f"shard {shard}: round {waiting.round} of {waiting.rounds} is done; the next round needs shards "
        f"{', '.join(map(str, waiting.missing))} too. Run them, then repeat this command (or give --wait MINUTES)"
    )
