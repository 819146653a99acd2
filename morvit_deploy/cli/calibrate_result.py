"""What `calibrate` writes and prints: the plan, its Pareto front, and how far a shard has come."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from morvit_deploy.cli.shared.console import emit, note, say, warn
from morvit_deploy.errors import OutputError

if TYPE_CHECKING:
    from morvit_deploy.planning.rounds import Calibrated, Waiting

Files = tuple[Path, Path, Path]  # plan, its front as numbers, as a picture


def files_of(out: Path) -> Files:
    """The plan's file, and beside it the Pareto front as numbers and as a picture."""
    if not out.name:
        raise OutputError(f"-o {out} is a folder, expected a file name")
    return out, out.with_name(f"{out.stem}.pareto.json"), out.with_name(f"{out.stem}.pareto.png")


def write(calibrated: Calibrated, files: Files) -> None:
    """All or nothing: everything is made first, and the plan, which names the rest, is written last."""
    from morvit_deploy.files import write_bytes
    from morvit_deploy.planning.front import draw

    out, pareto, picture = files
    numbers = json.dumps(calibrated.as_dict(), indent=1, allow_nan=False) + "\n"
    contents = {
        pareto: numbers.encode(),
        picture: draw(calibrated),
        out: calibrated.plan.to_json().encode(),
    }
    new = [path for path in contents if not path.exists()]
    try:
        for path, content in contents.items():
            write_bytes(path, content)
    except BaseException:  # an interrupt, too
        for path in new:
            path.unlink(missing_ok=True)
        raise


def print_result(calibrated: Calibrated, files: Files, as_json: bool) -> None:
    from morvit_deploy.planning.front import calibration_report

    out, _, picture = files
    warn([*(f"not read: {reason}" for _, reason in calibrated.bad), *calibrated.remarks])
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
        say(json.dumps(done, indent=2))
        return
    if waiting is None:
        note(f"shard {shard}: all rounds are done; once every shard is done, join them with --merge")
        return
    note(
        f"shard {shard}: round {waiting.round} of {waiting.rounds} is done; the next round needs shards "
        f"{', '.join(map(str, waiting.missing))} too. Run them, then repeat this command (or give --wait MINUTES)"
    )
