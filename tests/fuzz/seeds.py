"""The sound inputs: a checkpoint, a bundle, pictures, a plan, statistics, a result, devices, files of other code."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

from adaptive_plans import threshold_plan
from calibration_setup import save_pictures
from foreign_checkpoints import SAID, saved, vit
from mutations import toml_of
from source_outputs import outputs_of, written
from tiny_models import make_config, random_model

from morvit_deploy import calibrate_shard, export
from morvit_deploy.cli.shared.stored import stored
from morvit_deploy.model.checkpoint import fingerprint, save_checkpoint
from morvit_deploy.report import Picture, Report, Table
from morvit_deploy.sources.conversion import read_model
from morvit_deploy.sources.settings.given import Given

PICTURES = 6
DRAWING = b"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><g fill="none" stroke="#333">\
<rect x="1" y="1" width="4" height="4"/><path d="M0 0L9 9"/></g><text x="2" y="8" font-size="3">ms</text></svg>"""
DEVICES = {
    "device": [
        {"name": "desk", "kind": "cpu", "threads": 1, "runs": 20},
        {
            "name": "pi",
            "kind": "ssh",
            "host": "pi@pi.local",
            "ssh-option": ["Port=2222"],
            "remote-dir": "/data",
        },
        {"name": "phone", "kind": "browser", "listen": True, "port": 8000, "backend": "wasm"},
    ]
}
RESULT = Report(
    "Measurement",
    [
        Table(
            "Warm latency",
            ("bundle", "p50 ms"),
            [("small", "1.5"), ("large", "3")],
            (1,),
            "2 blocks of 9 runs",
        ),
        Picture("Buckets", Path("buckets.svg"), "of 9 images", DRAWING, chart=True),
        Table("Conditions", ("what", "value"), [("threads", "2")]),
    ],
    "small is 2 times as fast as large.",
    Picture("Time and size", Path("pareto.svg"), "", DRAWING, chart=True),
)


def make_seeds(folder: Path, bundle: Path | None = None) -> Path:
    """Fill a folder; `bundle`, of the tiny checkpoint beside it, saves an export."""
    config = make_config()
    save_checkpoint(random_model(config), folder / "checkpoint")
    if bundle is None:
        export(folder / "checkpoint", folder / "bundle", with_depth=True)
    else:
        shutil.copytree(bundle, folder / "bundle")
    save_pictures(folder / "pictures", PICTURES)
    with (folder / "pictures" / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *((f"{i:03}.png", str(i)) for i in range(PICTURES))])
    plan = threshold_plan(config, (0.0, 0.0, 0.0), [(4, 4, 1), (8, 6, 2)], upto=(4, 8))
    plan = plan.model_copy(update={"checkpoint": fingerprint(folder / "checkpoint")})
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    for _ in range(config.num_steps + 1):  # a round each
        for part in ("1/2", "2/2"):
            calibrate_shard(folder / "checkpoint", folder / "pictures", folder / "statistics", part)
    result = {"format": "morvit-bench/1", "report": stored(RESULT)}
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "devices.toml").write_text(toml_of(DEVICES), encoding="utf-8")
    source = saved(vit("aaa"), folder / "model.pth")
    written(folder / "reference.npz", **outputs_of(read_model(source, Given(**SAID)).model))
    return folder
