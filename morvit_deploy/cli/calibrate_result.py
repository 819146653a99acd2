"""What `calibrate` writes and prints: the plan, its Pareto front, and how far a shard has come."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from morvit_deploy.cli.shared.common import emit, stderr

if TYPE_CHECKING:
    from morvit_deploy.planning.calibrated import Calibrated, PlanFiles
    from morvit_deploy.planning.rounds import Waiting


def print_result(calibrated: Calibrated, files: PlanFiles, as_json: bool) -> None:
    from morvit_deploy.planning.front import calibration_report

    out, _, picture = files
    console = stderr()
    for _, reason in calibrated.bad:
        console.print(f"warning: not read: {reason}", markup=False, highlight=False)
    for remark in calibrated.remarks:
        console.print(f"warning: {remark}", markup=False, highlight=False, style="yellow")
    data = {
        "plan": calibrated.plan.model_dump(mode="json"),
        "pareto": calibrated.as_dict(),
        "files": list(map(str, files)),
    }
    emit(calibration_report(calibrated, out, picture), data, as_json)


def print_shard(shard: str, waiting: Waiting | None, as_json: bool) -> None:
    if as_json:
        rounds = {} if waiting is None else {"round": waiting.round, "rounds": waiting.rounds}
        missing = [] if waiting is None else list(map(str, waiting.missing))
        done = {"shard": shard, "done": waiting is None, **rounds, "missing": missing}
        typer.echo(json.dumps(done, indent=2))
        return
    console = stderr()
    if waiting is None:
        console.print(f"shard {shard}: all rounds are done; when every shard is, join them with --merge")
        return
    console.print(
        f"shard {shard}: round {waiting.round} of {waiting.rounds} is done; the next needs it from shards "
        f"{', '.join(map(str, waiting.missing))} too. Run them, then this line again (or give --wait MINUTES)"
    )
